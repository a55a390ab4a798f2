/* SPDX-License-Identifier: MIT */
/* host/tokenizer/charsmap.h - SentencePiece's precompiled map of characters to their normal forms.
 *
 * Bytes: u32 LE size of the trie in bytes, the trie as a double array of u32 (Darts-clone,
 * github.com/s-yata/darts-clone), then the normal forms, each closed by a zero byte; a value
 * of the trie is the offset of one. tokenizer.json holds it in base64 as normalizer "Precompiled".
 *
 * Applied as Hugging Face's spm_precompiled does: a grapheme of less than six bytes as a whole if
 * the map knows a beginning of it, else each of its characters alone.                   */
#ifndef GT_TOKENIZER_CHARSMAP_H
#define GT_TOKENIZER_CHARSMAP_H

#include "host/base/text.h"

#include <stddef.h>
#include <stdint.h>

typedef struct charsmap charsmap;

/* GT_FORMAT if the bytes are no such map. They are copied. */
gt_status charsmap_open(charsmap **out, const unsigned char *bytes, size_t size);
/* From base64. */
gt_status charsmap_open_base64(charsmap **out, const char *text);
void charsmap_close(charsmap *m);       /* takes NULL */

/* Appends the normal form of text[0..size), which is UTF-8. */
void charsmap_apply(const charsmap *m, const unsigned char *text, size_t size, gt_text *out);

#endif
