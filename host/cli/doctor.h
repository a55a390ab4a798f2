/* host/cli/doctor.h - what the files of `geartrain doctor` share. */
#ifndef GT_CLI_DOCTOR_H
#define GT_CLI_DOCTOR_H

/* One line each; a bad one with what to do about it. They count. */
void doctor_good(const char *format, ...) __attribute__((format(printf, 1, 2)));
void doctor_bad(const char *fix, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Drivers, render nodes, devices. */
void doctor_opencl(void);

#endif
