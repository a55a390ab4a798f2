/* SPDX-License-Identifier: MIT */
/* host/base/file.c - mapped reading, and writing beside the target and renaming.
 *
 *   open   PATH.partial-1234     a name no other process uses
 *   put    ... bytes ...         a short write or ENOSPC ends it; the partial goes away
 *   commit fflush, fsync, rename(PATH.partial-1234, PATH), fsync(folder)
 *
 * The rename is the only instant at which PATH changes, and it is atomic: a reader or a
 * crash sees the old file or the new one, never half of either.                         */
#include "host/base/file.h"

#include "host/base/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

/* What git leaves in place of a file whose content lies in git's large file storage, unless it was
 * fetched (git-lfs, docs/spec.md): some lines of text, the first of them this one's. */
static int is_lfs_pointer(const gt_map *m)
{
    static const char first[] = "version https://git-lfs.github.com/spec/";
    return m->size >= sizeof first - 1 && m->size < 1024 && !memcmp(m->data, first, sizeof first - 1);
}

gt_status gt_map_open(gt_map *out, const char *path)
{
    memset(out, 0, sizeof *out);
    struct stat info;
    gt_status st = GT_OK;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return gt_fail(errno == ENOENT ? GT_NOT_FOUND : GT_IO, "cannot open '%s': %s", path, strerror(errno));
    if (fstat(fd, &info) != 0) {
        st = gt_fail(GT_IO, "cannot read '%s': %s", path, strerror(errno));
        goto out;
    }
    if (!S_ISREG(info.st_mode)) {
        st = gt_fail(GT_IO, "cannot read '%s': not a regular file", path);
        goto out;
    }
    if (info.st_size > 0) {
        void *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED) {
            st = gt_fail(GT_IO, "cannot map '%s': %s", path, strerror(errno));
            goto out;
        }
        out->data = data;
        out->size = (size_t)info.st_size;
    }
    out->path = strdup(path);
    if (!out->path) {
        gt_map_close(out);
        st = gt_fail(GT_NO_MEMORY, "cannot map '%s': no memory for its path", path);
    } else if (is_lfs_pointer(out)) {
        gt_map_close(out);
        st = gt_fail(GT_FORMAT,
                     "cannot read '%s': it is a git-lfs pointer, not the file that it stands "
                     "for; run `git lfs pull` in its folder, or download the file itself",
                     path);
    }
out:
    close(fd);
    return st;
}

void gt_map_close(gt_map *m)
{
    if (!m)
        return;
    if (m->data)
        munmap((void *)(uintptr_t)m->data, m->size);
    free(m->path);
    memset(m, 0, sizeof *m);
}

gt_status gt_file_read(char **out, size_t *size, const char *path, size_t limit)
{
    *out = NULL;
    gt_map map;
    gt_status st = gt_map_open(&map, path);
    if (st)
        return st;
    if (map.size > limit) {
        st = gt_fail(GT_FORMAT, "cannot read '%s': %zu bytes, more than the %zu allowed here", path, map.size, limit);
        goto out;
    }
    char *text = malloc(map.size + 1);
    if (!text) {
        st = gt_fail(GT_NO_MEMORY, "cannot read '%s': no memory for its %zu bytes", path, map.size);
        goto out;
    }
    if (map.size)
        memcpy(text, map.data, map.size);
    text[map.size] = '\0';
    *out = text;
    if (size)
        *size = map.size;
out:
    gt_map_close(&map);
    return st;
}

struct gt_writer {
    FILE *file;
    char *path, *partial;
    uint64_t size, sent;                    /* sent: of it the disk was told to write */
    XXH3_state_t *hash;
    int patched;
};

static gt_status writer_error(gt_writer *w, const char *what)
{
    return gt_fail(GT_IO, "cannot %s '%s': %s", what, w->path, strerror(errno));
}

void gt_writer_abandon(gt_writer *w)
{
    if (!w)
        return;
    if (w->file) {
        fclose(w->file);
        unlink(w->partial);
    }
    XXH3_freeState(w->hash);
    free(w->path);
    free(w->partial);
    free(w);
}

gt_status gt_writer_open(gt_writer **out, const char *path)
{
    static atomic_uint serial;
    *out = NULL;
    gt_writer *w = calloc(1, sizeof *w);
    size_t room = strlen(path) + 48;
    if (w) {
        w->path = strdup(path);
        w->partial = malloc(room);
        w->hash = XXH3_createState();
    }
    if (!w || !w->path || !w->partial || !w->hash) {
        gt_writer_abandon(w);
        return gt_fail(GT_NO_MEMORY, "cannot write '%s': no memory for its path and buffers", path);
    }
    XXH3_64bits_reset(w->hash);
    snprintf(w->partial, room, "%s.partial-%ld-%u", path, (long)getpid(), atomic_fetch_add(&serial, 1));
    w->file = fopen(w->partial, "wbe");
    if (!w->file) {
        gt_status st = writer_error(w, "create");
        gt_writer_abandon(w);
        return st;
    }
    setvbuf(w->file, NULL, _IOFBF, 1 << 18);
    *out = w;
    return GT_OK;
}

/* Of a large file the disk gets what is there while the rest is being made, so that fsync() finds little left to
 * wait for. Only advice: fsync() tells of what went wrong. */
static gt_status send_on(gt_writer *w)
{
    enum { STRETCH = 32 << 20 };
    if (w->size - w->sent < STRETCH)
        return GT_OK;
    if (fflush(w->file) != 0)
        return writer_error(w, "write");
    sync_file_range(fileno(w->file), (off_t)w->sent, (off_t)(w->size - w->sent), SYNC_FILE_RANGE_WRITE);
    w->sent = w->size;
    return GT_OK;
}

gt_status gt_writer_put(gt_writer *w, const void *data, size_t size)
{
    if (size && fwrite(data, 1, size, w->file) != size)
        return writer_error(w, "write");
    w->size += size;
    if (size)
        XXH3_64bits_update(w->hash, data, size);
    return send_on(w);
}

gt_status gt_writer_printf(gt_writer *w, const char *format, ...)
{
    char small[512], *text = small;
    va_list args;
    va_start(args, format);
    int n = vsnprintf(small, sizeof small, format, args);
    va_end(args);
    if (n < 0)
        return gt_fail(GT_IO, "cannot write '%s': bad text", w->path);
    if ((size_t)n >= sizeof small) {
        text = malloc((size_t)n + 1);
        if (!text)
            return gt_fail(GT_NO_MEMORY, "cannot write '%s': no memory for a text of %d bytes", w->path, n);
        va_start(args, format);
        vsnprintf(text, (size_t)n + 1, format, args);
        va_end(args);
    }
    gt_status st = gt_writer_put(w, text, (size_t)n);
    if (text != small)
        free(text);
    return st;
}

gt_status gt_writer_patch(gt_writer *w, uint64_t offset, const void *data, size_t size)
{
    if (fseeko(w->file, (off_t)offset, SEEK_SET) != 0 || fwrite(data, 1, size, w->file) != size
        || fseeko(w->file, (off_t)w->size, SEEK_SET) != 0)
        return writer_error(w, "write");
    return GT_OK;
}

uint64_t gt_writer_size(const gt_writer *w)
{
    return w->size;
}

uint64_t gt_writer_hash(const gt_writer *w)
{
    return XXH3_64bits_digest(w->hash);
}

/* The folder a path lies in, "." if it names none; a fresh string. */
static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return strdup(".");
    return slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
}

gt_status gt_writer_commit(gt_writer *w)
{
    gt_status st = GT_OK;
    if (fflush(w->file) != 0 || fsync(fileno(w->file)) != 0) {
        st = writer_error(w, "write");
        goto out;
    }
    int closed = fclose(w->file);
    w->file = NULL;
    if (closed != 0 || rename(w->partial, w->path) != 0) {
        st = writer_error(w, "finish");
        unlink(w->partial);
        goto out;
    }
    char *folder = folder_of(w->path);
    if (folder)
        st = gt_folder_sync(folder);
    free(folder);
out:
    gt_writer_abandon(w);
    return st;
}

gt_status gt_file_write(const char *path, const void *data, size_t size)
{
    gt_writer *w;
    gt_status st = gt_writer_open(&w, path);
    if (st)
        return st;
    st = gt_writer_put(w, data, size);
    if (st) {
        gt_writer_abandon(w);
        return st;
    }
    return gt_writer_commit(w);
}

int gt_path_is_folder(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

int gt_path_exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0;
}

gt_status gt_folder_make(const char *path)
{
    char *copy = strdup(path);
    if (!copy)
        return gt_fail(GT_NO_MEMORY, "cannot make folder '%s': no memory for its path", path);
    gt_status st = GT_OK;
    for (char *p = copy + (*copy == '/'); !st && p;) {
        p = strchr(p, '/');
        if (p)
            *p = '\0';
        const int why = *copy && mkdir(copy, 0777) != 0 ? errno : 0;
        if (why && !gt_path_is_folder(copy))
            st = gt_fail(GT_IO, "cannot make folder '%s': %s", copy,
                         why == EEXIST ? "something else has that name" : strerror(why));
        if (p)
            *p++ = '/';
    }
    free(copy);
    return st;
}

/* Removes what `name` names inside the folder open at `parent`. */
static int remove_below(int parent, const char *name)
{
    if (unlinkat(parent, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return -1;
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -1;
    DIR *dir = fdopendir(fd);
    if (!dir) {
        close(fd);
        return -1;
    }
    int failed = 0;
    for (struct dirent *e; (e = readdir(dir));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
            failed |= remove_below(fd, e->d_name);
    closedir(dir);
    return failed || unlinkat(parent, name, AT_REMOVEDIR) != 0 ? -1 : 0;
}

gt_status gt_folder_remove(const char *path)
{
    if (remove_below(AT_FDCWD, path) != 0)
        return gt_fail(GT_IO, "cannot remove '%s': %s", path, strerror(errno));
    return GT_OK;
}

gt_status gt_folder_tidy(const char *path)
{
    DIR *dir = opendir(path);
    gt_status st = GT_OK;
    if (!dir)
        return errno == ENOENT ? GT_OK : gt_fail(GT_IO, "cannot read folder '%s': %s", path, strerror(errno));
    for (struct dirent *e; !st && (e = readdir(dir));) {
        const char *mark = strstr(e->d_name, ".partial-");
        long pid;
        unsigned serial;
        int end = 0;
        if (!mark || sscanf(mark, ".partial-%ld-%u%n", &pid, &serial, &end) != 2 || mark[end])
            continue;
        if (unlinkat(dirfd(dir), e->d_name, 0) != 0 && errno != ENOENT)
            st = gt_fail(GT_IO, "cannot remove '%s/%s': %s", path, e->d_name, strerror(errno));
    }
    closedir(dir);
    return st;
}

gt_status gt_folder_sync(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return gt_fail(GT_IO, "cannot open folder '%s': %s", path, strerror(errno));
    int failed = fsync(fd) != 0 && errno != EINVAL;     /* EINVAL: no such thing here */
    int why = errno;
    close(fd);
    return failed ? gt_fail(GT_IO, "cannot sync folder '%s': %s", path, strerror(why)) : GT_OK;
}

char *gt_path_join(const char *folder, const char *name)
{
    size_t a = strlen(folder), b = strlen(name);
    char *path = malloc(a + b + 2);
    if (path) {
        memcpy(path, folder, a);
        if (a && folder[a - 1] != '/')
            path[a++] = '/';
        memcpy(path + a, name, b + 1);
    }
    return path;
}

char *gt_path_absolute(const char *path)
{
    char here[PATH_MAX];
    return *path == '/' || !getcwd(here, sizeof here) ? strdup(path) : gt_path_join(here, path);
}

int gt_folder_writable(const char *path)
{
    char trial[4096];
    snprintf(trial, sizeof trial - sizeof "/.geartrain-XXXXXX", "%s", path);
    while (!gt_path_exists(trial)) {            /* up to what is there already */
        char *slash = strrchr(trial, '/');
        if (!slash)
            strcpy(trial, ".");
        else
            slash[slash == trial] = '\0';
    }
    strcat(trial, "/.geartrain-XXXXXX");
    return mkdtemp(trial) && rmdir(trial) == 0;
}

/* Where caches are wanted, or GT_NOT_FOUND and why there is no such place. */
static gt_status wanted_base(char *out, size_t size)
{
    const char *own = getenv("GEARTRAIN_CACHE"), *xdg = getenv("XDG_CACHE_HOME");
    const char *home = getenv("HOME");
    if (own && *own)
        snprintf(out, size, "%s", own);
    else if (xdg && *xdg)
        snprintf(out, size, "%s/geartrain", xdg);
    else if (!home || !*home)
        return gt_fail(GT_NOT_FOUND, "HOME is not set");
    else if (!strcmp(home, "/") || !gt_path_is_folder(home))
        return gt_fail(GT_NOT_FOUND, "HOME is '%s'%s", home, strcmp(home, "/") ? ", which is no folder" : "");
    else
        snprintf(out, size, "%s/.cache/geartrain", home);
    return GT_OK;
}

/* base/name, made if need be, if files can be made in it. */
static gt_status usable_below(char **out, const char *base, const char *name)
{
    *out = gt_path_join(base, name);
    if (!*out)
        return gt_fail(GT_NO_MEMORY, "cannot use cache folder '%s': no memory for its path", name);
    gt_status st = gt_folder_make(*out);
    if (!st && !gt_folder_writable(*out))
        st = gt_fail(GT_IO, "cannot write in cache folder '%s': %s", *out, strerror(errno));
    if (st) {
        free(*out);
        *out = NULL;
    }
    return st;
}

/* A folder of this user's in the temporary folder, which everybody writes in: what stands there
 * under that name may be another user's, or lead elsewhere. */
static gt_status temporary_base(char *out, size_t size)
{
    const char *folder = getenv("TMPDIR");
    struct stat is;
    snprintf(out, size, "%s/geartrain-%ld", folder && *folder ? folder : "/tmp", (long)geteuid());
    if (mkdir(out, 0700) != 0 && errno != EEXIST)
        return gt_fail(GT_IO,
                       "cannot make folder '%s': %s; name a folder for caches in "
                       "GEARTRAIN_CACHE",
                       out, strerror(errno));
    if (lstat(out, &is) != 0 || !S_ISDIR(is.st_mode) || is.st_uid != geteuid())
        return gt_fail(GT_IO,
                       "cannot keep caches in '%s': it is not a folder of this user's; name "
                       "another in GEARTRAIN_CACHE",
                       out);
    if ((is.st_mode & 077) && chmod(out, 0700) != 0)
        return gt_fail(GT_IO,
                       "cannot keep caches in '%s': others may write there; name another "
                       "folder in GEARTRAIN_CACHE",
                       out);
    return GT_OK;
}

gt_status gt_cache_find(char **out, const char *name, char *trouble, size_t trouble_size)
{
    char base[3072];
    *out = NULL;
    *trouble = '\0';
    gt_status st = wanted_base(base, sizeof base);
    if (!st)
        st = usable_below(out, base, name);
    if (!st || st == GT_NO_MEMORY)
        return st;
    snprintf(trouble, trouble_size, "%s", gt_message());
    gt_message_clear();
    st = temporary_base(base, sizeof base);
    return st ? st : usable_below(out, base, name);
}

gt_status gt_cache_folder(char **out, const char *name)
{
    static atomic_flag told = ATOMIC_FLAG_INIT;
    char trouble[4096];
    gt_status st = gt_cache_find(out, name, trouble, sizeof trouble);
    if (!st && *trouble && !atomic_flag_test_and_set(&told))
        gt_log(GT_LOG_WARN, "base",
               "%s; caches are kept in '%.*s', which may not last: name a "
               "folder in GEARTRAIN_CACHE",
               trouble, (int)(strlen(*out) - strlen(name) - 1), *out);
    return st;
}

uint64_t gt_hash(const void *data, size_t size)
{
    return XXH3_64bits(data, size);
}
