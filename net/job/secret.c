/* SPDX-License-Identifier: MIT */
/* net/job/secret.c - keys and proofs by HMAC-SHA256, and the user's secret file.
 *
 * The file is made by link(): many ranks may start at once, on one host or on several that
 * share the home folder. Each writes a file of its own and links it to the name; the first
 * link wins, the others read what it holds.                                              */
#include "net/job/secret.h"

#include "host/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void net_secret_mac(unsigned char mac[NET_MAC], const unsigned char key[NET_SECRET], const char *label,
                    const net_span *parts, int count)
{
    crypto_auth_hmacsha256_state s;
    crypto_auth_hmacsha256_init(&s, key, NET_SECRET);
    crypto_auth_hmacsha256_update(&s, (const unsigned char *)label, strlen(label) + 1);
    for (int i = 0; i < count; i++)
        if (parts[i].size)
            crypto_auth_hmacsha256_update(&s, parts[i].data, parts[i].size);
    crypto_auth_hmacsha256_final(&s, mac);
    sodium_memzero(&s, sizeof s);
}

int net_secret_equal(const unsigned char a[NET_MAC], const unsigned char b[NET_MAC])
{
    return sodium_memcmp(a, b, NET_MAC) == 0;
}

void net_secret_key(unsigned char key[NET_SECRET], const net_identity *who)
{
    static const unsigned char none[NET_SECRET];
    const net_span job = { who->job, strlen(who->job) };
    net_secret_mac(key, who->has_secret ? who->secret : none, "geartrain job", &job, 1);
}

void net_secret_random(void *out, size_t size)
{
    randombytes_buf(out, size);
}

gt_status net_secret_parse(unsigned char secret[NET_SECRET], const char *text, const char *origin)
{
    size_t size = 0;
    const char *end = NULL;
    text += strspn(text, " \t\r\n");
    if (sodium_hex2bin(secret, NET_SECRET, text, strlen(text), NULL, &size, &end) != 0 || size != NET_SECRET
        || end[strspn(end, " \t\r\n")])
        return gt_fail(GT_FORMAT, "cannot use the secret of %s: it is not %d hexadecimal digits", origin,
                       2 * NET_SECRET);
    return GT_OK;
}

void net_secret_format(char out[2 * NET_SECRET + 1], const unsigned char secret[NET_SECRET])
{
    sodium_bin2hex(out, 2 * NET_SECRET + 1, secret, NET_SECRET);
}

void net_secret_path(char *out, size_t size, const char *path)
{
    const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    if (path && *path)
        snprintf(out, size, "%s", path);
    else if (config && *config)
        snprintf(out, size, "%s/geartrain/secret", config);
    else
        snprintf(out, size, "%s%s", home ? home : "", home && *home ? "/.config/geartrain/secret" : "");
}

static gt_status make_folder_of(const char *path)
{
    char folder[4096];
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (!slash || slash == folder)
        return GT_OK;
    *slash = '\0';
    return gt_folder_make(folder);
}

/* Writes a fresh secret aside and links it to `path`, unless somebody was faster. */
static gt_status make_file(const char *path)
{
    unsigned char secret[NET_SECRET];
    char aside[4200], text[2 * NET_SECRET + 2];
    uint64_t unique;
    gt_status st = make_folder_of(path);
    if (st)
        return st;
    net_secret_random(&unique, sizeof unique);
    snprintf(aside, sizeof aside, "%s.%016llx", path, (unsigned long long)unique);
    net_secret_random(secret, sizeof secret);
    net_secret_format(text, secret);
    text[2 * NET_SECRET] = '\n';
    const int fd = open(aside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return gt_fail(GT_IO,
                       "cannot make secret file '%s': %s; name another in the network "
                       "setting secret-file",
                       path, strerror(errno));
    const int bad = write(fd, text, sizeof text - 1) != (ssize_t)sizeof text - 1 || fsync(fd) != 0;
    close(fd);
    if (bad || (link(aside, path) != 0 && errno != EEXIST))
        st = gt_fail(GT_IO, "cannot make secret file '%s': %s", path, strerror(errno));
    unlink(aside);
    sodium_memzero(secret, sizeof secret);
    sodium_memzero(text, sizeof text);
    return st;
}

static gt_status read_secret(unsigned char secret[NET_SECRET], int fd, const char *path)
{
    struct stat s;
    char text[256];
    if (fstat(fd, &s) != 0 || !S_ISREG(s.st_mode))
        return gt_fail(GT_IO, "cannot use secret file '%s': it is no regular file", path);
    if (s.st_mode & (S_IRWXG | S_IRWXO))
        return gt_fail(GT_IO,
                       "cannot use secret file '%s': others may read or write it (mode %03o); "
                       "chmod 600 it, or remove it to have a new one made",
                       path, (unsigned)(s.st_mode & 0777));
    if (s.st_uid != geteuid())
        return gt_fail(GT_IO, "cannot use secret file '%s': it belongs to user %ld, not to you", path, (long)s.st_uid);
    const ssize_t n = read(fd, text, sizeof text - 1);
    if (n < 0)
        return gt_fail(GT_IO, "cannot read secret file '%s': %s", path, strerror(errno));
    text[n] = '\0';
    gt_status st = net_secret_parse(secret, text, path);
    sodium_memzero(text, sizeof text);
    return st;
}

gt_status net_secret_file(unsigned char secret[NET_SECRET], const char *path)
{
    char full[4096];
    net_secret_path(full, sizeof full, path);
    if (!*full)
        return gt_fail(GT_NOT_FOUND, "cannot find the job's secret: there is no home folder; name a "
                                     "file in the network setting secret-file");
    int fd = open(full, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) {
        gt_status st = make_file(full);
        if (st)
            return st;
        fd = open(full, O_RDONLY | O_CLOEXEC);
    }
    if (fd < 0)
        return gt_fail(GT_IO, "cannot open secret file '%s': %s", full, strerror(errno));
    gt_status st = read_secret(secret, fd, full);
    close(fd);
    return st;
}
