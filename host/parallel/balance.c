/* host/parallel/balance.c - handing out micro-batches one by one.
 *
 * Giving the next one to whoever would be done with it first is optimal: an exchange of two
 * never makes the latest end earlier.                                                     */
#include "host/parallel/balance.h"

gt_status parallel_balance(const double *seconds, int replicas, int total, int *share)
{
    if (total < replicas)
        return gt_fail(GT_MISMATCH, "a step of %d micro-batches cannot be shared by %d replicas; make "
                       "--batch larger or --micro-batch smaller", total, replicas);
    for (int r = 0; r < replicas; r++)
        share[r] = 1;
    for (int left = total - replicas; left > 0; left--) {
        int soonest = 0;
        for (int r = 1; r < replicas; r++)
            if ((share[r] + 1) * seconds[r] < (share[soonest] + 1) * seconds[soonest])
                soonest = r;
        share[soonest]++;
    }
    return GT_OK;
}
