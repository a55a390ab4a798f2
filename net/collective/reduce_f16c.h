/* SPDX-License-Identifier: MIT */
/* net/collective/reduce_f16c.h - fp16 sums with the processor's own conversions, where it has
 * them. Only for reduce.c. Each handles the elements up to a multiple of 8 and says how many;
 * NaNs keep their payload here, all else has the bits of reduce.c's arithmetic.         */
#ifndef NET_COLLECTIVE_REDUCE_F16C_H
#define NET_COLLECTIVE_REDUCE_F16C_H

#include <stddef.h>
#include <stdint.h>

int net_f16c_available(void);
size_t net_f16c_sum(uint16_t *d, const uint16_t *s, size_t n);
size_t net_f16c_widen(float *acc, const uint16_t *s, size_t n);
size_t net_f16c_widen_add(float *acc, const uint16_t *s, size_t n);
size_t net_f16c_narrow(uint16_t *d, const float *acc, size_t n);

#endif
