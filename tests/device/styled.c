/* SPDX-License-Identifier: MIT */
/* tests/device/styled.c - see styled.h. */
#include "tests/device/styled.h"

#include "tests/check.h"

#include <stdlib.h>
#include <string.h>

dev_device *styled_device(const char *style)
{
    char **specs = NULL;
    int count = 0;
    dev_device *d = NULL;
    if (!CHECK_OK(dev_specs(&specs, &count, getenv("GT_TEST_DEVICE"))))
        return NULL;
    setenv("GEARTRAIN_STYLE", style, 1);
    const gt_status st = dev_open(&d, specs[0]);
    unsetenv("GEARTRAIN_STYLE");
    dev_specs_free(specs, count);
    if (!CHECK_OK(st))
        return NULL;
    if (!strcmp(style, "cpu") && dev_info_of(d)->kind == DEV_GPU) {
        check_skip("'%s' is a GPU: only the GPU bodies are for it", dev_info_of(d)->id);
        dev_close(d);
        return NULL;
    }
    return d;
}
