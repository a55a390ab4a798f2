/* SPDX-License-Identifier: MIT */
/* host/optim/optim_host.c - rules that work element by element, on host memory: cl/optim.cl's formulas in its order,
 * fp32, for servers whose device is busy with a step of its own. */
#include "host/optim/optim_private.h"

#include <assert.h>
#include <math.h>

int optim_rule_on_host(const optim_rule *r)
{
    return r->host != NULL;
}

void optim_host_update(const optim_config *c, const optim_host *u)
{
    assert(c->rule->host);
    c->rule->host(c, u);
}

unsigned optim_host_keeps(const optim_config *c)
{
    return optim_rule_keeps(c, NULL);
}

void optim_adamw_host(const optim_config *c, const optim_host *u)
{
    const float lr = (float)u->lr, beta2 = (float)c->beta2, rest1 = (float)(1.0 - c->beta1);
    const float rest2 = (float)(1.0 - c->beta2), eps = (float)c->eps, keep = 1.0f - lr * u->decay;
    const float bias1 = (float)-expm1((double)u->step * log(c->beta1));
    const float root2 = sqrtf((float)-expm1((double)u->step * log(c->beta2))), step = lr / bias1;
    float *restrict w = u->value, *restrict m = u->slot[0], *restrict v = u->slot[1];
    const float *restrict g = u->gradient;
    for (int64_t i = 0; i < u->count; i++) {
        m[i] += rest1 * (g[i] - m[i]);
        v[i] = v[i] * beta2 + rest2 * (g[i] * g[i]);
        w[i] = w[i] * keep - step * (m[i] / (sqrtf(v[i]) / root2 + eps));
    }
}

void optim_sgd_host(const optim_config *c, const optim_host *u)
{
    const float lr = (float)u->lr, momentum = (float)c->momentum, decay = u->decay;
    float *restrict w = u->value, *restrict m = u->slot[0];
    const float *restrict g = u->gradient;
    for (int64_t i = 0; !m && i < u->count; i++)
        w[i] -= lr * (g[i] + decay * w[i]);
    for (int64_t i = 0; m && i < u->count; i++) {
        m[i] = g[i] + decay * w[i] + momentum * m[i];
        w[i] -= lr * m[i];
    }
}

void optim_lion_host(const optim_config *c, const optim_host *u)
{
    const float lr = (float)u->lr, keep = 1.0f - lr * u->decay;
    const float rest1 = (float)(1.0 - c->beta1), rest2 = (float)(1.0 - c->beta2);
    float *restrict w = u->value, *restrict m = u->slot[0];
    const float *restrict g = u->gradient;
    for (int64_t i = 0; i < u->count; i++) {
        const float x = m[i] + rest1 * (g[i] - m[i]);
        w[i] = w[i] * keep - lr * (x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : 0.0f);
        m[i] += rest2 * (g[i] - m[i]);
    }
}
