/* tests/parallel/test_balance.c - shares of micro-batches: all handed out, everyone has one, and no
 * other way of sharing is done earlier. */
#include "host/base/random.h"
#include "host/parallel/balance.h"
#include "tests/check.h"

static double end_of(const double *seconds, const int *share, int n)
{
    double end = 0.0;
    for (int r = 0; r < n; r++)
        end = share[r] * seconds[r] > end ? share[r] * seconds[r] : end;
    return end;
}

/* The best end of all ways to share `left` among replicas [r, n), tried one by one. */
static double best_of_all(const double *seconds, int r, int n, int left)
{
    if (r >= n - 1)
        return left * seconds[r];
    double best = 1e30;
    for (int mine = 1; mine <= left - (n - 1 - r); mine++) {
        const double rest = best_of_all(seconds, r + 1, n, left - mine);
        const double end = mine * seconds[r] > rest ? mine * seconds[r] : rest;
        best = end < best ? end : best;
    }
    return best;
}

static void no_other_share_is_done_earlier(void)
{
    gt_random random;
    gt_random_init(&random, 3, 1);
    for (int round = 0; round < 300; round++) {
        const int n = 1 + (int)gt_random_below(&random, 4);
        const int total = n + (int)gt_random_below(&random, 12);
        double seconds[8] = { 0 };
        int share[4], sum = 0;
        for (int r = 0; r < n; r++)
            seconds[r] = 0.1 + (double)gt_random_unit(&random);
        if (!CHECK_OK(parallel_balance(seconds, n, total, share)))
            continue;
        for (int r = 0; r < n; r++) {
            CHECK(share[r] >= 1);
            sum += share[r];
        }
        CHECK(sum == total);
        const double end = end_of(seconds, share, n), best = best_of_all(seconds, 0, n, total);
        CHECKF(end <= best * (1 + 1e-12), "%d micro-batches on %d replicas: %g, could be %g", total, n, end,
               best);
    }
}

static void shares_follow_speed(void)
{
    int share[3];
    CHECK_OK(parallel_balance((double[]){ 1.0, 2.0, 4.0 }, 3, 70, share));
    CHECK(share[0] == 40 && share[1] == 20 && share[2] == 10);
}

static void too_few_micro_batches_are_refused(void)
{
    int share[3];
    CHECK_FAILS(parallel_balance((double[]){ 1.0, 1.0, 1.0 }, 3, 2, share), GT_MISMATCH,
                "cannot be shared by 3 replicas");
}

const check_case check_cases[] = {
    CASE(no_other_share_is_done_earlier),
    CASE(shares_follow_speed),
    CASE(too_few_micro_batches_are_refused),
    { 0 } };
