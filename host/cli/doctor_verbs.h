/* SPDX-License-Identifier: MIT */
/* host/cli/doctor_verbs.h - the doctor's look at RDMA. */
#ifndef GT_CLI_DOCTOR_VERBS_H
#define GT_CLI_DOCTOR_VERBS_H

#include "host/cli/cli_net.h"

/* Says what is fine with `good` and what is not, with its fix, with `bad`. A machine without any
 * sign of RDMA is fine. */
void doctor_verbs(cli_say_good *good, cli_say_bad *bad);

#endif
