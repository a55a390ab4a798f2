/* tests/job/test_job.c - ranks find each other, exchange, connect, and leave. */
#include "tests/check.h"
#include "tests/job/gang.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* CUnit's checks may be used by one thread only: ranks count what is wrong instead. */
static _Atomic int wrong;
#define WANT(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s (%s)\n", __FILE__, __LINE__, #condition, gt_message()); \
            wrong++; \
        } \
    } while (0)

static void exchange_sizes(net_job *job, int rank, void *context)
{
    (void)context;
    unsigned char mine[300];
    net_blobs all;
    memset(mine, rank + 1, sizeof mine);
    for (int round = 0; round < 20; round++) {
        const size_t size = (size_t)((rank * 37 + round) % 300);
        WANT(net_job_exchange(job, "sizes", mine, size, &all) == GT_OK);
        WANT(all.count == net_job_size(job));
        for (int i = 0; i < all.count; i++) {
            WANT(all.size[i] == (size_t)((i * 37 + round) % 300));
            WANT(all.size[i] == 0 || all.data[i][all.size[i] - 1] == i + 1);
        }
        net_blobs_release(&all);
    }
    WANT(net_job_barrier(job, "end") == GT_OK);
}

static void joins_of_all_sizes_exchange(void)
{
    for (int size = 1; size <= 9; size++) {
        gang g;
        gang_init(&g, size);
        g.run = exchange_sizes;
        wrong = 0;
        gang_go(&g);
        for (int i = 0; i < size; i++)
            CHECKF(g.status[i] == GT_OK, "rank %d of %d: %s", i, size, g.message[i]);
        CHECK(wrong == 0);
        gang_release(&g);
    }
}

typedef struct meeting { pthread_mutex_t lock; pthread_cond_t changed; int fd[GANG][GANG]; } meeting;
typedef struct door { meeting *m; int rank; } door;

static void take(void *context, int peer, int fd)
{
    door *d = context;
    pthread_mutex_lock(&d->m->lock);
    d->m->fd[d->rank][peer] = fd;
    pthread_cond_broadcast(&d->m->changed);
    pthread_mutex_unlock(&d->m->lock);
}

/* Lower ranks connect to higher ones, and say who they are. */
static void connect_all(net_job *job, int rank, void *context)
{
    meeting *m = context;
    door d = { m, rank };
    const int size = net_job_size(job);
    for (int to = rank + 1; to < size; to++) {
        int fd;
        WANT(net_job_connect(job, to, &fd) == GT_OK);
        WANT(write(fd, &rank, sizeof rank) == sizeof rank);
        close(fd);
    }
    net_job_on_stream(job, take, &d);
    for (int from = 0; from < rank; from++) {
        int said = -1;
        pthread_mutex_lock(&m->lock);
        while (m->fd[rank][from] < 0)
            pthread_cond_wait(&m->changed, &m->lock);
        pthread_mutex_unlock(&m->lock);
        WANT(read(m->fd[rank][from], &said, sizeof said) == sizeof said);
        WANT(said == from);
        close(m->fd[rank][from]);
    }
    net_job_on_stream(job, NULL, NULL);
    WANT(net_job_barrier(job, "met") == GT_OK);
}

static void any_two_ranks_have_streams(void)
{
    meeting m = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };
    gang g;
    memset(m.fd, -1, sizeof m.fd);
    gang_init(&g, 5);
    g.run = connect_all;
    g.context = &m;
    wrong = 0;
    gang_go(&g);
    CHECK(wrong == 0);
    gang_release(&g);
}

const check_case check_cases[] = {
    CASE(joins_of_all_sizes_exchange),
    CASE(any_two_ranks_have_streams),
    { 0 } };
