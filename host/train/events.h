/* SPDX-License-Identifier: MIT */
/* host/train/events.h - TensorBoard's event files.
 *
 * A TFRecord a record: u64 length, masked crc32c of it, data, masked crc32c of the data;
 * data is the protocol buffer tensorflow.Event with scalar summaries (tensorflow/core/util/
 * event.proto, framework/summary.proto, framework/tensor.proto of texts). The first record holds "brain.Event:2", which is what
 * makes TensorBoard look for the second: a session log that starts (SessionLog.START) at a step,
 * upon which it drops what earlier files of the folder say of that step and later ones.   */
#ifndef GT_TRAIN_EVENTS_H
#define GT_TRAIN_EVENTS_H

#include "host/base/status.h"

#include <stdint.h>

typedef struct events events;

/* A new file beside those that are there, whose first step will be `first`. */
gt_status events_open(events **out, const char *folder, uint64_t first);
gt_status events_scalar(events *e, uint64_t step, const char *tag, float value);
/* Shown by TensorBoard's text page, as Markdown. */
gt_status events_text(events *e, uint64_t step, const char *tag, const char *text);
gt_status events_flush(events *e);
gt_status events_close(events *e);              /* takes NULL */

/* CRC-32C (Castagnoli), polynomial 0x1EDC6F41 reflected; here for its test. */
uint32_t events_crc32c(const void *data, size_t size);

#endif
