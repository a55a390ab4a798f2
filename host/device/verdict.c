/* SPDX-License-Identifier: MIT */
/* host/device/verdict.c - may this device be used, and whose clock times it?
 *
 *   known in this process  ->  kept on disk  ->  asked now (prove.c), and kept
 *
 * What is kept is one small file a device, driver and style, in the cache folder:
 *
 *   geartrain proof 0123456789abcdef         the version of the questions; another one is ignored
 *   holds                                    or: no clock, and behind it what was found
 *
 * A refusal is not kept: whoever repairs a driver without a new version number would be told of
 * the old one for ever. It costs a bad device its questions at each start.                */
#include "host/device/device_private.h"

#include "host/base/activity.h"
#include "host/base/file.h"
#include "host/base/log.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct verdict {
    uint64_t fingerprint;
    dev_verdict is;
    int told;                   /* the warning was logged                       */
    char found[512];
} verdict;

static struct {
    pthread_mutex_t lock;
    verdict list[64];           /* a machine with more kinds of devices asks again */
    int count;
} known = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* ---- on disk -------------------------------------------------------------------------------- */

static int file_of(char *path, size_t size, uint64_t fingerprint)
{
    char *folder;
    if (gt_cache_folder(&folder, "proof")) {
        gt_message_clear();             /* no cache: asked again next time */
        return 0;
    }
    snprintf(path, size, "%s/%016llx.txt", folder, (unsigned long long)fingerprint);
    free(folder);
    return 1;
}

static int load(verdict *v)
{
    char path[4096], *text = NULL;
    unsigned long long version;
    int at = 0;
    v->found[0] = '\0';
    if (!file_of(path, sizeof path, v->fingerprint) || !gt_path_exists(path))
        return 0;
    if (gt_file_read(&text, NULL, path, 4096)) {
        gt_message_clear();
        return 0;
    }
    int whole = sscanf(text, "geartrain proof %16llx%n", &version, &at) == 1 && version == dev_prove_version()
                && text[at] == '\n';
    if (whole && !strcmp(text + at, "\nholds\n"))
        v->is = DEV_HOLDS;
    else if (whole && sscanf(text + at, "\nno clock %511[^\n]", v->found) == 1)
        v->is = DEV_NO_CLOCK;
    else
        whole = 0;
    if (!whole)
        gt_log(GT_LOG_INFO, "device", "the proof in '%s' is damaged or of another version; the device is asked again",
               path);
    free(text);
    return whole;
}

static void store(const verdict *v)
{
    char path[4096], text[1024];
    if (v->is == DEV_WRONG || !file_of(path, sizeof path, v->fingerprint))
        return;
    const int n = snprintf(text, sizeof text, "geartrain proof %016llx\n%s%s\n",
                           (unsigned long long)dev_prove_version(), v->is == DEV_HOLDS ? "holds" : "no clock ",
                           v->found);
    if (gt_file_write(path, text, (size_t)n)) {
        gt_log(GT_LOG_INFO, "device", "what was proved is not kept: %s", gt_message());
        gt_message_clear();
    }
}

/* ---- in this process --------------------------------------------------------------------------- */

/* The lock is held. */
static verdict *find(uint64_t fingerprint)
{
    for (int i = 0; i < known.count; i++)
        if (known.list[i].fingerprint == fingerprint)
            return &known.list[i];
    return NULL;
}

static verdict *remember(const verdict *v)
{
    enum { ROOM = sizeof known.list / sizeof *known.list };
    verdict *slot = find(v->fingerprint);
    if (!slot)
        slot = &known.list[known.count < ROOM ? known.count++ : ROOM - 1];
    *slot = *v;
    return slot;
}

static void keep_worst(void *context, const dev_proof *proof)
{
    verdict *v = context;
    gt_log(GT_LOG_DEBUG, "device", "probe '%s': %s", proof->name, proof->verdict == DEV_HOLDS ? "holds" : proof->found);
    if (v->is == DEV_WRONG || proof->verdict == DEV_HOLDS)
        return;
    v->is = proof->verdict;
    snprintf(v->found, sizeof v->found, "%s", proof->found);
}

static gt_status refuse(const dev_info *i, const verdict *v)
{
    return gt_fail(GT_UNSUPPORTED,
                   "device '%s' (%s, %s, driver %s) is not used, for it computes "
                   "wrongly: %s; update its driver or take another device (`geartrain devices` lists "
                   "them, `geartrain doctor` shows all that was tried)",
                   i->id, i->name, i->platform, i->driver, v->found);
}

static gt_status apply(dev_device *d, verdict *v)
{
    if (v->is == DEV_WRONG)
        return refuse(&d->info, v);
    d->info.host_clock = v->is == DEV_NO_CLOCK;
    if (v->is == DEV_NO_CLOCK && !v->told) {
        v->told = 1;
        gt_log(GT_LOG_WARN, "device",
               "the time stamps of '%s' (%s, driver %s) are wrong: %s; it is "
               "timed by the host's clock",
               d->info.id, d->info.name, d->info.driver, v->found);
    }
    return GT_OK;
}

/* One thread at a time asks: ranks that are threads of one process share a device. A slowed device
 * is asked at its own speed. */
gt_status dev_judge(dev_device *d)
{
    verdict fresh = { .fingerprint = dev_fingerprint(d) };
    gt_activity a;
    gt_status st = GT_OK;
    d->unproven = 0;
    gt_activity_begin(&a, "proving that the device computes rightly", NULL, 0);
    dev_full_speed(d, 1);
    pthread_mutex_lock(&known.lock);
    verdict *v = find(fresh.fingerprint);
    if (!v && load(&fresh))
        v = remember(&fresh);
    if (!v) {
        fresh = (verdict){ .fingerprint = fresh.fingerprint };
        st = dev_prove(d, keep_worst, &fresh);
        if (!st) {
            v = remember(&fresh);
            store(v);
        }
    }
    if (!st)
        st = apply(d, v);
    pthread_mutex_unlock(&known.lock);
    dev_full_speed(d, 0);
    gt_activity_end(&a);
    d->unproven = st != GT_OK;
    return st;
}

int dev_judged(const dev_info *i)
{
    verdict fresh = { .fingerprint = dev_fingerprint_of(i) };
    pthread_mutex_lock(&known.lock);
    const int is = find(fresh.fingerprint) || (load(&fresh) && remember(&fresh));
    pthread_mutex_unlock(&known.lock);
    return is;
}

gt_status dev_usable(const dev_info *i)
{
    verdict *v, was = { .fingerprint = dev_fingerprint_of(i) };
    dev_device *d;
    if (dev_judged(i)) {
        pthread_mutex_lock(&known.lock);
        if ((v = find(was.fingerprint)))
            was = *v;
        pthread_mutex_unlock(&known.lock);
        return was.is == DEV_WRONG ? refuse(i, &was) : GT_OK;
    }
    gt_status st = dev_open_unproven(&d, i->path);
    if (!st)
        st = dev_judge(d);
    dev_close(d);
    return st;
}
