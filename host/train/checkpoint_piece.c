/* SPDX-License-Identifier: MIT */
/* host/train/checkpoint_piece.c - which part of a tensor a file holds.
 *
 *   "pieces": {"h.0.attn.c_attn.weight": {"full": [96, 32],
 *                                         "slice": {"dim": 0, "parts": 3, "full": 32,
 *                                                   "begin": 0, "count": 16},
 *                                         "range": [0, 1536]}}
 *
 * Slices and ranges are one form and not two, for they occur together: a rank holds some heads
 * of a projection and keeps the moments of a range of those. A tensor without a note is whole,
 * so files of one rank are what any reader of safetensors expects. "blocks": true says that it is 8 bits a
 * number in blocks (host/tensor/q8.h), which the file has as bytes.                     */
#include "host/tensor/q8.h"
#include "host/train/checkpoint_private.h"

checkpoint_piece checkpoint_entry_piece(const checkpoint_entry *e)
{
    return (checkpoint_piece){ e->full, e->slice, e->begin, e->end, DTYPE_F32 };
}

int checkpoint_piece_is_whole(const checkpoint_piece *p)
{
    return !p->slice.parts && p->begin == 0 && p->end == shape_count(&p->full);
}

shape checkpoint_piece_shape(const checkpoint_piece *p)
{
    const shape held = tensor_slice_shape(&p->full, &p->slice);
    if (p->type == DTYPE_Q8)
        return shape_of(1, (int64_t)q8_bytes(q8_of(&held, &p->slice)));
    return p->begin == 0 && p->end == shape_count(&held) ? held : shape_of(1, p->end - p->begin);
}

dtype checkpoint_piece_type(const checkpoint_piece *p)
{
    return p->type == DTYPE_Q8 ? DTYPE_U8 : p->type;
}

gt_status checkpoint_piece_note(json_t *notes, const char *name, const checkpoint_piece *p)
{
    const tensor_slice *s = &p->slice;
    if (checkpoint_piece_is_whole(p) && p->type != DTYPE_Q8)
        return GT_OK;
    json_t *dims = json_array();
    for (int i = 0; dims && i < p->full.rank; i++)
        if (json_array_append_new(dims, json_integer(p->full.dim[i]))) {
            json_decref(dims);
            dims = NULL;
        }
    json_t *slice = !s->parts
                        ? json_null()
                        : json_pack("{s:i, s:i, s:I, s:I, s:I}", "dim", s->dim, "parts", s->parts, "full",
                                    (json_int_t)s->full, "begin", (json_int_t)s->begin, "count", (json_int_t)s->count);
    json_t *note = json_pack("{s:o, s:o, s:[I, I], s:o*}", "full", dims, "slice", slice, "range", (json_int_t)p->begin,
                             (json_int_t)p->end, "blocks", p->type == DTYPE_Q8 ? json_true() : NULL);
    return note && !json_object_set_new(notes, name, note)
               ? GT_OK
               : gt_fail(GT_NO_MEMORY, "no memory for the note on tensor '%s'", name);
}

static gt_status bad_note(const char *path, const char *name)
{
    return gt_fail(GT_FORMAT,
                   "cannot load '%s': what it says of tensor '%s' under \"pieces\" makes "
                   "no sense",
                   path, name);
}

static int read_slice(tensor_slice *out, json_t *slice)
{
    json_int_t full, begin, count;
    *out = (tensor_slice){ 0 };
    if (json_is_null(slice))
        return 1;
    if (json_unpack(slice, "{s:i, s:i, s:I, s:I, s:I}", "dim", &out->dim, "parts", &out->parts, "full", &full, "begin",
                    &begin, "count", &count)
        || out->parts < 1)
        return 0;
    out->full = full;
    out->begin = begin;
    out->count = count;
    return 1;
}

static int read_dims(shape *out, const json_t *dims)
{
    const size_t rank = json_array_size(dims);
    *out = (shape){ 0 };
    if (!json_is_array(dims) || rank > SHAPE_MAX_RANK)
        return 0;
    out->rank = (int)rank;
    for (size_t i = 0; i < rank; i++)
        out->dim[i] = json_integer_value(json_array_get(dims, i));
    return 1;
}

static gt_status wrong_shape(const char *path, const st_tensor *t, const shape *has, dtype type, const shape *want)
{
    char a[64], b[64];
    return gt_fail(GT_MISMATCH, "cannot load '%s': tensor '%s' is %s %s, the model has %s %s", path, t->name,
                   dtype_name(t->type), shape_format(has, a, sizeof a), dtype_name(type),
                   shape_format(want, b, sizeof b));
}

/* Everything is held against `full`, which is the model's and not the file's, before any
 * number is reckoned with. */
gt_status checkpoint_piece_read(checkpoint_piece *out, const json_t *notes, const st_tensor *t, const shape *full,
                                const char *path)
{
    json_t *note = json_object_get(notes, t->name), *dims, *slice;
    json_int_t begin, end;
    *out = (checkpoint_piece){ .full = *full, .end = shape_count(full), .type = t->type };
    if (note) {
        if (json_unpack(note, "{s:o, s:o, s:[I, I]}", "full", &dims, "slice", &slice, "range", &begin, &end)
            || !read_dims(&out->full, dims) || !read_slice(&out->slice, slice))
            return bad_note(path, t->name);
        out->begin = begin;
        out->end = end;
        out->type = json_is_true(json_object_get(note, "blocks")) ? DTYPE_Q8 : t->type;
    }
    if (!(out->type == DTYPE_Q8 ? t->type == DTYPE_U8 : dtype_is_storage(t->type)) || !shape_equal(&out->full, full))
        return wrong_shape(path, t, note ? &out->full : &t->dims, DTYPE_F32, full);
    if (!tensor_slice_fits(full, &out->slice))
        return bad_note(path, t->name);
    const shape held = tensor_slice_shape(full, &out->slice);
    if (out->begin < 0 || out->begin > out->end || out->end > shape_count(&held))
        return bad_note(path, t->name);
    if (out->type == DTYPE_Q8 && (out->begin || out->end != shape_count(&held) || !q8_fits(full, &out->slice)))
        return bad_note(path, t->name);
    const shape lies = checkpoint_piece_shape(out);
    return shape_equal(&lies, &t->dims) ? GT_OK : wrong_shape(path, t, &t->dims, t->type, &lies);
}
