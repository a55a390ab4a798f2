/* SPDX-License-Identifier: MIT */
/* tests/kernel/emulated/waves.c - from barrier to barrier.
 *
 * Groups run one after another, and within a group a wave runs until it is at a barrier before the next
 * one begins. So whoever reads what another wave should have written before a barrier that is not
 * there, finds that it was not written: local memory begins each group as NaN.                      */
#include "tests/kernel/emulated/waves.h"

#include <string.h>

enum { RUNS, WAITS, ENDED };

#define ENDED_PC UINT64_MAX

typedef void (*translated)(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);

static uint32_t *scalars_of(const launch *l, uint32_t wave)
{
    return l->scalars + (size_t)wave * WAVES_SGPRS;
}

static size_t vector_words(const launch *l)
{
    return (size_t)WAVES_VGPRS * l->lanes;
}

static uint64_t pc_of(const uint32_t *scalars)
{
    return scalars[WAVES_PC] | (uint64_t)scalars[WAVES_PC + 1] << 32;
}

static void begin_group(launch *l)
{
    memcpy(l->scalars, l->start_scalars, (size_t)l->waves * WAVES_SGPRS * sizeof *l->scalars);
    memset(l->vectors, 0xff, l->waves * vector_words(l) * sizeof *l->vectors);
    memset(l->sums, 0xff, l->waves * vector_words(l) * sizeof *l->sums);
    memset(l->local, 0xff, l->local_bytes);
    for (uint32_t w = 0; w < l->waves; w++) {
        memcpy(l->vectors + w * vector_words(l), l->start_vectors + (size_t)w * l->lanes,
               l->lanes * sizeof *l->vectors);
        for (int i = 0; i < 3; i++)
            if (l->group_register[i] < WAVES_SGPRS)
                scalars_of(l, w)[l->group_register[i]] |= (uint32_t)l->at[i] << l->group_shift[i];
        l->stopped[w] = RUNS;
    }
    l->begun = 1;
}

static void advance(uint32_t *scalars, uint32_t bytes)
{
    const uint64_t pc = pc_of(scalars) + bytes;
    scalars[WAVES_PC] = (uint32_t)pc;
    scalars[WAVES_PC + 1] = (uint32_t)(pc >> 32);
}

/* Until a barrier or the end; like waves_run(). */
static int run_wave(launch *l, uint32_t wave)
{
    uint32_t *scalars = scalars_of(l, wave), *vectors = l->vectors + wave * vector_words(l);
    uint32_t *sums = l->sums + wave * vector_words(l);
    const uint64_t files[WAVES_FILES] = {
        (uint64_t)(uintptr_t)scalars,
        (uint64_t)(uintptr_t)vectors,
        0,
        (uint64_t)(uintptr_t)l->local,
        (uint64_t)(uintptr_t)(l->private + (size_t)wave * l->lanes * l->private_bytes),
        (uint64_t)(uintptr_t)sums
    };
    for (;;) {
        const uint64_t pc = pc_of(scalars);
        if (pc == ENDED_PC) {
            l->stopped[wave] = ENDED;
            return 0;
        }
        if (pc - l->code >= l->code_bytes || pc % 4) {
            l->missing = pc;
            return 2;
        }
        const site *s = &l->sites[(pc - l->code) / 4];
        switch (s->how) {
        case SITE_TRANSLATED:
            ((translated)(uintptr_t)s->function)(files[s->arg[0]], files[s->arg[1]], files[s->arg[2]], files[s->arg[3]],
                                                 files[s->arg[4]], files[s->arg[5]]);
            break;
        case SITE_MATRIX:
            matrix_run(s, scalars, vectors, sums);
            advance(scalars, s->bytes);
            break;
        case SITE_NOTHING: advance(scalars, s->bytes); break;
        default: l->missing = pc; return 1;
        }
        l->counts[COUNT_ALL]++;
        l->counts[s->count]++;
        if (s->barrier) {
            l->stopped[wave] = WAITS;
            return 0;
        }
    }
}

/* One group, from wherever it is. */
static int run_group(launch *l)
{
    uint32_t ended = 0;
    if (!l->begun)
        begin_group(l);
    while (ended < l->waves) {
        for (uint32_t w = 0; w < l->waves; w++) {
            const int st = l->stopped[w] == RUNS ? run_wave(l, w) : 0;
            if (st)
                return st;
        }
        ended = 0;
        for (uint32_t w = 0; w < l->waves; w++) {
            ended += l->stopped[w] == ENDED;
            if (l->stopped[w] == WAITS)
                l->stopped[w] = RUNS;
        }
    }
    l->begun = 0;
    return 0;
}

int waves_run(launch *l)
{
    while (l->at[2] < l->groups[2]) {
        const int st = run_group(l);
        if (st)
            return st;
        for (int i = 0; i < 3; i++) {
            if (++l->at[i] < l->groups[i] || i == 2)
                break;
            l->at[i] = 0;
        }
    }
    return 0;
}
