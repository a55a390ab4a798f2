/* SPDX-License-Identifier: MIT */
/* host/cli/doctor.h - what the files of `geartrain doctor` share. */
#ifndef GT_CLI_DOCTOR_H
#define GT_CLI_DOCTOR_H

#include "host/device/device.h"

/* One line each; a bad one with what to do about it. They count. */
void doctor_good(const char *format, ...) __attribute__((format(printf, 1, 2)));
void doctor_bad(const char *fix, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Drivers, render nodes, devices; `prove`: with doctor_prove_step() on each device. */
void doctor_opencl(int prove);
/* Products of each engine, and a training step of a tiny model, against the host in double. */
void doctor_prove_step(const dev_info *i);

#endif
