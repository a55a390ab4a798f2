/* cl/xent.cl - softmax cross-entropy of rows, and the sum of a vector.
 *
 *   loss[r]     = log(sum over v of e^logits[r,v]) - logits[r,target[r]]
 *   dlogits[r,v] = (softmax(logits[r])[v] - (v == target[r])) * scale
 *
 * logits: fp32 (R,V). target: int (R); one outside [0,V) is ignored: loss and gradient 0.
 * loss: fp32 (R). dlogits: storage type (R,V), or null; it may be logits itself.
 * scale: fp32[1].
 * Everything is relative to the row's largest logit m, so no logit is too large. A row is
 * read once for m and the sum together: whenever m grows, the sum so far is scaled by
 * e^(old m - new m). It is read a second time for the gradient.
 * -inf logits have probability 0; +inf or NaN make the row's loss NaN.
 *
 * Rows     CPU: a work-item owns `per` rows. GPU: a work-group owns a row.
 * sum_all  one work-item (CPU) or one work-group (GPU) adds everything, always in the same
 *          order: it gets one number a row.
 * Nothing but the macros of cl/common.clh is set by the host.                             */

#ifdef STYLE_CPU

#define PIECE (64 * VW)         /* logits whose largest is found before their exps are summed */

KERNEL void xent(int per, int R, int V, __global const float *logits, __global const int *target,
                 __global const float *scale, __global float *loss, __global store_t *dlogits)
{
    const int first = get_global_id(0) * per, last = min(R, first + per);
    const floatV nothing = -INFINITY;

    for (int r = first; r < last; r++) {
        const size_t at = (size_t)r * V;
        const int hit = target[r];
        if (hit < 0 || hit >= V) {
            loss[r] = 0.0f;
            if (dlogits)
                for (int v = 0; v < V; v += VW)
                    store_some(dlogits, at + v, 0.0f, V - v);
            continue;
        }
        const int whole = V - V % VW;           /* the ragged end is handled lane by lane */
        float m = -INFINITY;
        floatV sum = 0.0f;
        for (int v = whole; v < V; v++)
            m = fmax(m, logits[at + v]);
        if (whole < V) {
            const float base = m == -INFINITY ? 0.0f : m;
            sum = some(expV(load_part_f32(logits, at + whole, V - whole) - base), V - whole);
        }
        for (int piece = 0; piece < whole; piece += PIECE) {
            const int end = min(whole, piece + PIECE);
            floatV most = nothing;
            for (int v = piece; v < end; v += VW)
                most = fmax(most, loadV_f32(logits, at + v));
            const float now = maxV(most);
            if (now > m) {
                sum *= m == -INFINITY ? 0.0f : exp(m - now);
                m = now;
            }
            const float base = m == -INFINITY ? 0.0f : m;
            floatV part = 0.0f;
            for (int v = piece; v < end; v += VW)
                part += expV(loadV_f32(logits, at + v) - base);
            sum += part;
        }
        const float total = sumV(sum);
        const float chosen = logits[at + hit];
        loss[r] = (m - chosen) + log(total);
        if (!dlogits)
            continue;
        const float factor = scale[0] / total;
        for (int v = 0; v < V; v += VW)
            store_some(dlogits, at + v, expV(load_some_f32(logits, at + v, V - v) - m) * factor,
                       V - v);
        store1(dlogits, at + hit, exp(chosen - m) * factor - scale[0]);
    }
}

KERNEL void sum_all(ulong n, __global const float *x, __global float *out, int add)
{
    floatV sum[4] = { 0.0f, 0.0f, 0.0f, 0.0f };
    ulong i = 0;
    for (; i + 4 * VW <= n; i += 4 * VW)
        for (int j = 0; j < 4; j++)
            sum[j] += loadV_f32(x, i + j * VW);
    for (; i < n; i += VW)
        sum[0] += load_some_f32(x, i, (int)min((ulong)VW, n - i));
    const float total = sumV((sum[0] + sum[1]) + (sum[2] + sum[3]));
    out[0] = add ? out[0] + total : total;
}

#else

KERNEL void xent(int per, int R, int V, __global const float *logits, __global const int *target,
                 __global const float *scale, __global float *loss, __global store_t *dlogits)
{
    __local float tmp[WG];
    const int r = get_group_id(0), me = get_local_id(0), hit = target[r];
    const size_t at = (size_t)r * V;

    if (hit < 0 || hit >= V) {                  /* the same for the whole group */
        if (me == 0)
            loss[r] = 0.0f;
        if (dlogits)
            for (int t = 0; t < V; t += TILE)
                tile_store(dlogits, r, t, V, 0.0f);
        return;
    }
    /* Past the end of a row tiles read 0, which is no logit; -inf has no weight. */
    float most = -INFINITY, sum = 0.0f;
    for (int t = 0; t < V; t += TILE) {
        const float4 x = select((float4)(-INFINITY), tile_load_f32(logits, r, t, V),
                                tile_mask(t, V) > 0.0f);
        const float now = fmax(most, maxV(x));
        if (now > most) {
            sum *= most == -INFINITY ? 0.0f : exp(most - now);
            most = now;
        }
        sum += sumV(exp(x - (most == -INFINITY ? 0.0f : most)));
    }
    const float m = group_max(most, tmp);
    if (most < m)
        sum *= most == -INFINITY ? 0.0f : exp(most - m);
    const float total = group_sum(sum, tmp), chosen = logits[at + hit];
    if (me == 0)
        loss[r] = (m - chosen) + log(total);
    if (!dlogits)
        return;
    barrier(CLK_GLOBAL_MEM_FENCE);              /* dlogits may be logits: all have read chosen */
    const float factor = scale[0] / total;
    for (int t = 0; t < V; t += TILE) {
        float4 d = exp(tile_load_f32(logits, r, t, V) - m) * factor;
        d.s0 -= tile_column(t, 0, V) == hit ? scale[0] : 0.0f;
        d.s1 -= tile_column(t, 1, V) == hit ? scale[0] : 0.0f;
        d.s2 -= tile_column(t, 2, V) == hit ? scale[0] : 0.0f;
        d.s3 -= tile_column(t, 3, V) == hit ? scale[0] : 0.0f;
        tile_store(dlogits, r, t, V, d);
    }
}

KERNEL void sum_all(ulong n, __global const float *x, __global float *out, int add)
{
    __local float tmp[WG];
    float sum[4] = { 0.0f, 0.0f, 0.0f, 0.0f };
    for (ulong i = get_local_id(0); i < n; i += 4 * WG)
        for (int j = 0; j < 4; j++)
            if (i + j * WG < n)
                sum[j] += x[i + j * WG];
    const float total = group_sum((sum[0] + sum[1]) + (sum[2] + sum[3]), tmp);
    if (get_local_id(0) == 0)
        out[0] = add ? out[0] + total : total;
}

#endif
