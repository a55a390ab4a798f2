/* SPDX-License-Identifier: MIT */
/* tests/fuzz/fuzz_plan.c - no text becomes a plan that its check would refuse, and one that is taken is the
 * same after it was written. */
#include "tests/fuzz/fuzz.h"

#include "host/pipeline/run_plan.h"

#include <stdlib.h>
#include <string.h>

#define SEED(text) { text, sizeof(text) - 1 }
#define HEAD "{\"format\":\"geartrain plan 1\",\"batch\":8,\"units\":6,\"schedule\":\"1f1b\",\"sync\":\"allreduce\","

const fuzz_seed fuzz_seeds[] = {
    SEED(HEAD "\"tensor\":1,\"chunks\":1,\"ranks\":[{},{\"device\":\"cpu:0.1\",\"memory\":1e6,\"limit\":2e6}],"
              "\"replicas\":[{\"micro_batches\":4,\"micro_batch\":2,\"stages\":[[1],[0]],\"cut\":[0,2,6],"
              "\"cost\":[{\"forward_s\":1e-3,\"send_s\":2},{\"update_s\":0.25}]}]}"),
    SEED(HEAD "\"tensor\":2,\"chunks\":1,\"share\":[0.75,0.25],\"recompute\":true,\"step_s\":0.5,\"idle\":0.1,"
              "\"ranks\":[{},{},{},{}],\"replicas\":[{\"micro_batches\":1,\"micro_batch\":6,\"stages\":[[0,2]],"
              "\"cut\":[0,6]},{\"micro_batches\":2,\"micro_batch\":1,\"stages\":[[1,3]],\"cut\":[0,6]}]}"),
    SEED("{\"format\":\"geartrain plan 1\",\"batch\":4,\"units\":6,\"tensor\":1,\"chunks\":2,"
         "\"schedule\":\"interleaved\",\"sync\":\"sharded\",\"ranks\":[{},{}],\"replicas\":[{\"micro_batches\":4,"
         "\"micro_batch\":1,\"stages\":[[0],[1]],\"cut\":[0,1,2,4,6]}]}"),
    SEED(HEAD "\"tensor\":65536,\"chunks\":255,\"ranks\":[0],\"replicas\":[[]]}"),
};
const size_t fuzz_seed_count = sizeof fuzz_seeds / sizeof *fuzz_seeds;

static int same_text(const run_plan *a, const run_plan *b)
{
    gt_text x = { 0 }, y = { 0 };
    const int same = !run_plan_text(a, &x) && !run_plan_text(b, &y) && !strcmp(x.data, y.data);
    gt_text_release(&x);
    gt_text_release(&y);
    return same;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    run_plan p, again;
    gt_text text = { 0 };
    char *input = malloc(size + 1);
    if (!input)
        abort();
    memcpy(input, data, size);
    input[size] = '\0';
    if (run_plan_parse(&p, input, "input")) {
        if (p.replica || p.ranks)
            abort();
    } else {
        if (run_plan_check(&p) || run_plan_text(&p, &text) || run_plan_parse(&again, text.data, "again")
            || !same_text(&p, &again))
            abort();
        for (int r = 0; r < p.ranks; r++)
            if (run_plan_place(&p, r).replica < 0)
                abort();
        run_plan_release(&again);
    }
    run_plan_release(&p);
    gt_text_release(&text);
    free(input);
    return 0;
}
