/* SPDX-License-Identifier: MIT */
/* models/generate_cut.h - which layers each stage of a generating pipeline holds.
 *
 *   speed   1.0                       0.5            weights a second, measured with a layer
 *   stage   [embedding, layers 0-7]   [8-11, head]   both take as long for a piece
 *
 * A token takes the time that its weights take to be read, so a stage costs the bytes that are read of its units: of
 * the embedding a row, of the head all of its table. The cut is the one whose slowest stage is fastest, among those
 * where each stage fits its device; of several, the one that fills the first stages least.          */
#ifndef GT_MODELS_GENERATE_CUT_H
#define GT_MODELS_GENERATE_CUT_H

#include "host/device/device.h"
#include "models/model.h"

/* cut: [stages + 1]; stage s holds units [cut[s], cut[s + 1]). speed: [stages], of which the ratios count. device:
 * [stages], how the stages are dealt to devices; memory: [devices], bytes that weights and caches may take on each.
 * GT_MISUSE if there are fewer layers than stages; GT_NO_MEMORY, with what is needed, if nothing fits. */
gt_status generate_cut(int *cut, const model_config *c, dtype storage, int stages, const double *speed,
                       const int *device, const uint64_t *memory);
/* Bytes of weights a second that the device reads with a layer of this model, the fastest of a few tokens. */
gt_status generate_speed(double *out, dev_device *d, const model_config *c, dtype storage);

#endif
