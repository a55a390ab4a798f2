/* SPDX-License-Identifier: MIT */
/* host/data/file_hash.h - what a file holds, as a number, without reading all of it at every start. */
#ifndef GT_DATA_FILE_HASH_H
#define GT_DATA_FILE_HASH_H

#include "host/base/status.h"

#include <stdint.h>

/* Size and XXH3-64 of a file; of an empty one *hash is 0. A large file that was hashed before is known in the cache
 * folder by device, inode, size and both times, and is not read. */
gt_status data_file_hash(const char *path, uint64_t *size, uint64_t *hash);

#endif
