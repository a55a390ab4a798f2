/* SPDX-License-Identifier: MIT */
/* tests/bench/allreduce_mpi.c - MPI_Allreduce, timed as `geartrain bench allreduce` times its own:
 * in place, float sums of zeros, verified once with small integers, about half a second a size.
 *
 *   mpicc -O2 allreduce_mpi.c && mpirun -n 2 a.out BYTES...      prints "BYTES MICROSECONDS" lines */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void fail(const char *what)
{
    fprintf(stderr, "allreduce_mpi: %s\n", what);
    MPI_Abort(MPI_COMM_WORLD, 1);
}

static void verify(float *x, int count, int rank, int size)
{
    for (int i = 0; i < count; i++)
        x[i] = (float)((i + 3 * rank) % 5 - 2);
    MPI_Allreduce(MPI_IN_PLACE, x, count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    for (int i = 0; i < count; i++) {
        float want = 0.0f;
        for (int r = 0; r < size; r++)
            want += (float)((i + 3 * r) % 5 - 2);
        if (x[i] != want)
            fail("a sum is wrong");
    }
}

static double run(float *x, int count, int n)
{
    MPI_Barrier(MPI_COMM_WORLD);
    const double start = MPI_Wtime();
    for (int i = 0; i < n; i++)
        MPI_Allreduce(MPI_IN_PLACE, x, count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    return (MPI_Wtime() - start) / n;
}

int main(int argc, char **argv)
{
    int rank, size;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    for (int a = 1; a < argc; a++) {
        const long bytes = atol(argv[a]);
        float *x = aligned_alloc(4096, ((size_t)bytes + 4095) / 4096 * 4096);
        if (!x)
            fail("out of memory");
        verify(x, (int)(bytes / 4), rank, size);
        memset(x, 0, (size_t)bytes);
        const double once = run(x, (int)(bytes / 4), 5);
        int n = 0.5 / once < 5 ? 5 : 0.5 / once > 20000 ? 20000 : (int)(0.5 / once);
        MPI_Bcast(&n, 1, MPI_INT, 0, MPI_COMM_WORLD);
        const double seconds = run(x, (int)(bytes / 4), n);
        if (rank == 0)
            printf("%ld %.3f\n", bytes, seconds * 1e6);
        free(x);
    }
    MPI_Finalize();
    return 0;
}
