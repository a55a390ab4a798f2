/* SPDX-License-Identifier: MIT */
/* host/kernel/kernel.c - the programs of one device and storage type, and how launches are cut.
 *
 * A CPU wants few, long work-items: a launch costs microseconds and a work-group of one about
 * a tenth of one, while 16k elements take some 10 us. A GPU wants every unit full of groups.
 * So the same kernels get their work in blocks here, and nobody else thinks about grain.  */
#include "host/kernel/kernel_private.h"

#include <assert.h>
#include <stdlib.h>

/* Elements a CPU work-item should own, and the least that is worth one. */
enum { GRAIN = 16384, GRAIN_LEAST = 1024 };

#define ROW(name) &kernel_##name##_family,
static const kernel_family *const families[] = { KERNEL_FAMILIES(ROW) NULL };
#undef ROW

const kernel_family *kernel_family_at(int i)
{
    return families[i];
}

gt_status kernel_set_create(kernel_set **out, dev_device *d, dtype storage)
{
    assert(dtype_is_storage(storage));
    *out = NULL;
    kernel_set *k = calloc(1, sizeof *k);
    if (!k)
        return gt_fail(GT_NO_MEMORY, "no memory for the state of a kernel set");
    k->device = d;
    k->info = dev_info_of(d);
    k->storage = storage;
    k->cpu = k->info->style == DEV_STYLE_CPU;
    k->group = 1;
    if (!k->cpu)                                /* as host/device/program.c sets WG */
        for (k->group = 256; k->group > k->info->max_group;)
            k->group /= 2;
    const size_t units = k->info->compute_units > 0 ? (size_t)k->info->compute_units : 1;
    k->items = units * (k->cpu ? 8 : 16);
    *out = k;
    return GT_OK;
}

void kernel_set_release(kernel_set *k)
{
    if (!k)
        return;
    for (int i = 0; i < k->built_count; i++)
        dev_program_release(k->built[i].program);
    free(k->built);
    free(k);
}

dtype kernel_set_storage(const kernel_set *k)
{
    return k->storage;
}

dev_device *kernel_set_device(const kernel_set *k)
{
    return k->device;
}

gt_status kernel_program(dev_program **out, kernel_set *k, const kernel_family *family, int variant)
{
    for (int i = 0; i < k->built_count; i++)
        if (k->built[i].family == family && k->built[i].variant == variant) {
            *out = k->built[i].program;
            return GT_OK;
        }
    struct kernel_built *grown = realloc(k->built, ((size_t)k->built_count + 1) * sizeof *grown);
    if (!grown)
        return gt_fail(GT_NO_MEMORY, "cannot build '%s': no memory for the list of programs", family->program.file);
    k->built = grown;
    gt_status st = dev_family_build(out, k->device, &family->program, k->storage,
                                    family->program.variants[variant].options);
    if (!st)
        grown[k->built_count++] = (struct kernel_built){ family, variant, *out };
    return st;
}

gt_status kernel_launch(dev_list *l, kernel_set *k, const kernel_family *family, const char *name, dev_grid grid,
                        const dev_arg *args, int count)
{
    dev_program *p;
    gt_status st = kernel_program(&p, k, family, 0);
    return st ? st : dev_list_kernel(l, p, name, grid, args, count);
}

gt_status kernel_launch_groups(dev_list *l, kernel_set *k, const kernel_family *family, const char *name, size_t groups,
                               const dev_arg *args, int count)
{
    return kernel_launch(l, k, family, name, dev_grid_1d(groups * k->group, k->group), args, count);
}

/* At least `least` and at most `most` of n to a work-item, so that there are k->items of
 * them where n allows. */
static size_t share(const kernel_set *k, size_t n, size_t least, size_t most)
{
    size_t each = (n + k->items - 1) / k->items;
    if (each > most)
        each = most;
    return each < least ? least : each;
}

gt_status kernel_launch_flat(dev_list *l, kernel_set *k, const kernel_family *family, int variant, const char *name,
                             int64_t n, dev_arg *args, int count)
{
    assert(n >= 0 && count >= 2);
    size_t block = 4;                           /* GPU: one float4 a work-item */
    if (k->cpu)                                 /* CPU: whole batches of 64 elements */
        block = (share(k, (size_t)n, GRAIN_LEAST, GRAIN) + 63) / 64 * 64;
    const size_t items = ((size_t)n + block - 1) / block;
    dev_program *p;
    args[0] = dev_arg_u64((uint64_t)n);
    args[1] = dev_arg_u32((uint32_t)block);
    gt_status st = kernel_program(&p, k, family, variant);
    return st ? st : dev_list_kernel(l, p, name, dev_grid_1d(items, k->group), args, count);
}

gt_status kernel_launch_rows(dev_list *l, kernel_set *k, const kernel_family *family, const char *name, int R, int cost,
                             dev_arg *args, int count)
{
    return kernel_launch_rows_of(l, k, family, 0, name, R, cost, args, count);
}

gt_status kernel_launch_rows_of(dev_list *l, kernel_set *k, const kernel_family *family, int variant, const char *name,
                                int R, int cost, dev_arg *args, int count)
{
    assert(R >= 0 && cost > 0 && count >= 1);
    size_t per = 1;
    dev_program *p;
    if (k->cpu)
        per = share(k, (size_t)R, (size_t)(GRAIN_LEAST / cost + 1), (size_t)(GRAIN / cost + 1));
    args[0] = dev_arg_i32((int32_t)per);
    const size_t groups = ((size_t)R + per - 1) / per;
    gt_status st = kernel_program(&p, k, family, variant);
    return st ? st : dev_list_kernel(l, p, name, dev_grid_1d(groups * k->group, k->group), args, count);
}

void kernel_slot_last(kernel_slot *slot, const dev_list *l, int arg)
{
    if (slot)
        *slot = (kernel_slot){ dev_list_count(l) - 1, arg };
}

gt_status kernel_fits(const char *what, int64_t n)
{
    if (n <= INT32_MAX)
        return GT_OK;
    return gt_fail(GT_UNSUPPORTED,
                   "cannot launch on %lld %s at once: kernels index with 32 bits; "
                   "use a smaller micro-batch or more stages",
                   (long long)n, what);
}

uint32_t kernel_dropout_limit(const kernel_dropout *drop)
{
    if (!drop)
        return 0;
    assert(drop->p >= 0.0f && drop->p < 1.0f);
    return (uint32_t)((double)drop->p * 0x1p32);
}

float kernel_dropout_factor(const kernel_dropout *drop)
{
    return drop ? (float)(1.0 / (1.0 - (double)drop->p)) : 1.0f;
}
