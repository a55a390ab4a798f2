/* SPDX-License-Identifier: MIT */
/* host/cli/choices.c - one line a table. */
#include "host/cli/choices.h"

#include "host/gemm/gemm.h"
#include "host/optim/optim.h"
#include "host/pipeline/pipe_schedule.h"
#include "host/sync/sync.h"

#include <stdio.h>
#include <string.h>

char cli_schedules[CLI_CHOICES] = "auto|", cli_syncs[CLI_CHOICES], cli_engines[CLI_CHOICES] = "auto|",
     cli_precisions[CLI_CHOICES], cli_rules[CLI_CHOICES];

void cli_choices_make(void)
{
    pipe_schedule_names(cli_schedules + strlen("auto|"));
    sync_mode_names(cli_syncs);
    gemm_engine_names(cli_engines + strlen("auto|"), sizeof cli_engines - strlen("auto|"), "|");
    dtype_storage_names(cli_precisions, sizeof cli_precisions, "|", "|");
    optim_rule_names(cli_rules, sizeof cli_rules);
}
