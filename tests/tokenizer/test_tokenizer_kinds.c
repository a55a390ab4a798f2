/* SPDX-License-Identifier: MIT */
/* tests/tokenizer/test_tokenizer_kinds.c - small tokenizers of every kind, with the ids and the text that Hugging
 * Face tokenizers 0.23.3 gave for them; SentencePiece's, llama2.c's and BERT's own files. */
#include "tests/check.h"

#include "host/base/file.h"
#include "host/base/random.h"
#include "host/tokenizer/tokenizer.h"
#include "host/tokenizer/vocabulary.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct kind_case {
    const char *name, *json;            /* @BYTES@ stands for the 256 tokens <0xXX>, ids 3 to 258 */
    const char *text;
    size_t count;
    uint32_t ids[24];
    const char *back;                   /* NULL: they give an added token its normalized text */
} kind_case;

/* clang-format off */
static const kind_case kinds[] = {
    { "BERT, lower-cased",
      "{\"added_tokens\":[{\"id\":0,\"content\":\"[UNK]\",\"special\":true},{\"id\":1,"
      "\"content\":\"[CLS]\",\"special\":true}],\"normalizer\":{\"type\":\"BertNormalizer\","
      "\"clean_text\":true,\"handle_chinese_chars\":true,\"lowercase\":true},"
      "\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},\"decoder\":{\"type\":\"WordPiece\","
      "\"prefix\":\"##\",\"cleanup\":true},\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"[UNK]"
      "\",\"continuing_subword_prefix\":\"##\",\"max_input_chars_per_word\":6,\"vocab\":{\"[UNK]"
      "\":0,\"[CLS]\":1,\"caf\":2,\"##e\":3,\"un\":4,\"##want\":5,\"##ed\":6,\",\":7,\"!\":8,"
      "\"\xe4\xbd\xa0\":9,\"run\":10,\"##s\":11,\"Caf\":12,\"##\xc3\xa9\":13,\"a\":14,\"##b\":15}}}",
      "[CLS] Caf\xc3\x89,\xc2\xa0UN\x01wanted\xe4\xbd\xa0run! runsab toolong\xe2\x80\x8b", 10,
      { 1, 2, 3, 7, 0, 9, 10, 8, 0, 0 },
      "[CLS] cafe, [UNK] \xe4\xbd\xa0 run! [UNK] [UNK]" },
    { "BERT, cased",
      "{\"added_tokens\":[{\"id\":0,\"content\":\"[UNK]\",\"special\":true}],"
      "\"normalizer\":{\"type\":\"BertNormalizer\",\"clean_text\":true,"
      "\"handle_chinese_chars\":true,\"lowercase\":false},"
      "\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},\"decoder\":{\"type\":\"WordPiece\","
      "\"prefix\":\"##\",\"cleanup\":false},\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"[UNK]"
      "\",\"continuing_subword_prefix\":\"##\",\"max_input_chars_per_word\":6,\"vocab\":{\"[UNK]"
      "\":0,\"[CLS]\":1,\"caf\":2,\"##e\":3,\"un\":4,\"##want\":5,\"##ed\":6,\",\":7,\"!\":8,"
      "\"\xe4\xbd\xa0\":9,\"run\":10,\"##s\":11,\"Caf\":12,\"##\xc3\xa9\":13,\"a\":14,\"##b\":15}}}",
      "Caf\xc3\xa9 caf\xc3\xa9 runs\tab  a", 9,
      { 12, 13, 2, 13, 10, 11, 14, 15, 14 },
      "Caf\xc3\xa9 caf\xc3\xa9 runs ab a" },
    { "Llama 2",
      "{\"added_tokens\":[{\"id\":0,\"content\":\"<unk>\",\"special\":true},{\"id\":1,"
      "\"content\":\"<s>\",\"special\":true}],\"normalizer\":{\"type\":\"Sequence\","
      "\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"\xe2\x96\x81\"},{\"type\":\"Replace\","
      "\"pattern\":{\"String\":\" \"},\"content\":\"\xe2\x96\x81\"}]},"
      "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\","
      "\"pattern\":{\"String\":\"\xe2\x96\x81\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},"
      "{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]},"
      "\"model\":{\"type\":\"BPE\",\"vocab\":{\"<unk>\":0,\"<s>\":1,\"</s>\":2,@BYTES@,"
      "\"\xe2\x96\x81\":259,\"H\":260,\"e\":261,\"l\":262,\"o\":263,\"\xe2\x96\x81H\":264,"
      "\"ll\":265,\"llo\":266,\"ello\":267,\"\xe2\x96\x81Hello\":268,"
      "\"\xe2\x96\x81\xe2\x96\x81\":269},\"merges\":[[\"\xe2\x96\x81\",\"H\"],[\"l\",\"l\"],"
      "[\"ll\",\"o\"],[\"e\",\"llo\"],[\"\xe2\x96\x81H\",\"ello\"],[\"\xe2\x96\x81\","
      "\"\xe2\x96\x81\"]],\"unk_token\":\"<unk>\",\"fuse_unk\":true,\"byte_fallback\":true}}",
      "Hello  Hello\n\xe4\xbd\xa0<s>Hello", 9,
      { 268, 259, 268, 13, 231, 192, 163, 1, 268 },
      "Hello  Hello\n\xe4\xbd\xa0<s> Hello" },
    { "Llama, a space in front of the text alone",
      "{\"added_tokens\":[{\"id\":1,\"content\":\"<s>\",\"special\":true}],"
      "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\","
      "\"prepend_scheme\":\"first\",\"split\":false},\"decoder\":{\"type\":\"Sequence\","
      "\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"\xe2\x96\x81\"},"
      "\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\","
      "\"content\":\" \",\"start\":1,\"stop\":0}]},\"model\":{\"type\":\"BPE\","
      "\"vocab\":{\"<unk>\":0,\"<s>\":1,\"</s>\":2,@BYTES@,\"\xe2\x96\x81\":259,\"H\":260,"
      "\"e\":261,\"l\":262,\"o\":263,\"\xe2\x96\x81H\":264,\"ll\":265,\"llo\":266,\"ello\":267,"
      "\"\xe2\x96\x81Hello\":268,\"\xe2\x96\x81\xe2\x96\x81\":269},\"merges\":[[\"\xe2\x96\x81\","
      "\"H\"],[\"l\",\"l\"],[\"ll\",\"o\"],[\"e\",\"llo\"],[\"\xe2\x96\x81H\",\"ello\"],"
      "[\"\xe2\x96\x81\",\"\xe2\x96\x81\"]],\"unk_token\":\"<unk>\",\"fuse_unk\":true,"
      "\"byte_fallback\":true}}",
      "Hello Hello<s>Hello", 5,
      { 268, 268, 1, 260, 267 },
      "Hello Hello<s>Hello" },
    { "Gemma",
      "{\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},"
      "\"content\":\"\xe2\x96\x81\"},\"pre_tokenizer\":{\"type\":\"Split\","
      "\"pattern\":{\"String\":\" \"},\"behavior\":\"MergedWithPrevious\"},"
      "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\","
      "\"pattern\":{\"String\":\"\xe2\x96\x81\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},"
      "{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]},"
      "\"model\":{\"type\":\"BPE\",\"vocab\":{\"<unk>\":0,\"<s>\":1,\"</s>\":2,@BYTES@,"
      "\"\xe2\x96\x81\":259,\"H\":260,\"e\":261,\"l\":262,\"o\":263,\"\xe2\x96\x81H\":264,"
      "\"ll\":265,\"llo\":266,\"ello\":267,\"\xe2\x96\x81Hello\":268,"
      "\"\xe2\x96\x81\xe2\x96\x81\":269},\"merges\":[[\"\xe2\x96\x81\",\"H\"],[\"l\",\"l\"],"
      "[\"ll\",\"o\"],[\"e\",\"llo\"],[\"\xe2\x96\x81H\",\"ello\"],[\"\xe2\x96\x81\","
      "\"\xe2\x96\x81\"]],\"unk_token\":\"<unk>\",\"fuse_unk\":true,\"byte_fallback\":true}}",
      "Hello  Hello", 4,
      { 260, 267, 259, 268 },
      "Hello  Hello" },
    { "unknown characters alone",
      "{\"pre_tokenizer\":{\"type\":\"WhitespaceSplit\"},\"decoder\":{\"type\":\"Fuse\"},"
      "\"model\":{\"type\":\"BPE\",\"vocab\":{\"?\":0,\"a\":1,\"b\":2,\"ab\":3},\"merges\":[[\"a\","
      "\"b\"]],\"unk_token\":\"?\"}}",
      "ab xy axb", 6,
      { 3, 0, 0, 1, 0, 2 },
      "ab??a?b" },
    { "unknown characters as one",
      "{\"pre_tokenizer\":{\"type\":\"Whitespace\"},\"decoder\":{\"type\":\"Fuse\"},"
      "\"model\":{\"type\":\"BPE\",\"vocab\":{\"?\":0,\"a\":1,\"b\":2,\"ab\":3},\"merges\":[[\"a\","
      "\"b\"]],\"unk_token\":\"?\",\"fuse_unk\":true}}",
      "ab xy axyb a-b", 8,
      { 3, 0, 1, 0, 2, 1, 0, 2 },
      "ab?a?ba?b" },
    { "Unigram",
      "{\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\","
      "\"prepend_scheme\":\"always\",\"split\":true},\"decoder\":{\"type\":\"Metaspace\","
      "\"replacement\":\"\xe2\x96\x81\",\"prepend_scheme\":\"always\",\"split\":true},"
      "\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"<unk>\",0.0],[\"\xe2\x96\x81\","
      "-2.5],[\"a\",-2.0],[\"b\",-2.25],[\"\xe2\x96\x81" "a\",-3.0],[\"ab\",-3.5],"
      "[\"\xe2\x96\x81" "ab\",-5.0],[\"bab\",-4.0],[\"c\",-6.0]]}}",
      "abab bab  xyzab c", 10,
      { 4, 7, 1, 7, 1, 1, 0, 5, 1, 8 },
      "abab bab  <unk>ab c" },
    { "Unigram, whole texts",
      "{\"normalizer\":{\"type\":\"NFKC\"},\"pre_tokenizer\":{\"type\":\"Metaspace\","
      "\"replacement\":\"\xe2\x96\x81\",\"prepend_scheme\":\"first\",\"split\":false},"
      "\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"<unk>\",0.0],[\"\xe2\x96\x81\","
      "-2.5],[\"a\",-2.0],[\"b\",-2.25],[\"\xe2\x96\x81" "a\",-3.0],[\"ab\",-3.5],"
      "[\"\xe2\x96\x81" "ab\",-5.0],[\"bab\",-4.0],[\"c\",-6.0]]}}",
      "a\xef\xbd\x81" "b bab", 4,
      { 4, 5, 1, 7 },
      "\xe2\x96\x81" "a ab \xe2\x96\x81 bab" },
    { "RoBERTa",
      "{\"added_tokens\":[{\"id\":4,\"content\":\"<mask>\",\"lstrip\":true,\"special\":true}],"
      "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"use_regex\":true},"
      "\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"use_regex\":true},"
      "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"\xc4\xa0\":2,\"\xc4\xa0" "a\":3,"
      "\"<mask>\":4},\"merges\":[[\"\xc4\xa0\",\"a\"]]}}",
      "ab a  <mask>a <mask> b", 8,
      { 3, 1, 3, 4, 3, 4, 2, 1 },
      " ab a<mask> a<mask> b" },
    { "Qwen2",
      "{\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"Sequence\","
      "\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
      "|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]"
      "*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},\"behavior\":\"Isolated\"},"
      "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]},"
      "\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true},"
      "\"model\":{\"type\":\"BPE\",\"vocab\":{\"c\":0,\"a\":1,\"f\":2,\"e\":3,"
      "\"\xc3\x83\xc2\xa9\":4,\"\xc3\x83\":5,\"\xc2\xa9\":6,\"\xc4\xa0\":7,\"1\":8,\"2\":9,"
      "\"12\":10,\"ca\":11,\"fe\":12},\"merges\":[[\"c\",\"a\"],[\"f\",\"e\"],[\"1\",\"2\"],"
      "[\"\xc3\x83\",\"\xc2\xa9\"]]}}",
      "cafe\xcc\x81 12 cafe", 9,
      { 11, 2, 4, 7, 8, 9, 7, 11, 12 },
      "caf\xc3\xa9 12 cafe" },
    { "digits and signs",
      "{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\","
      "\"individual_digits\":true},{\"type\":\"Punctuation\",\"behavior\":\"Contiguous\"},"
      "{\"type\":\"WhitespaceSplit\"}]},\"decoder\":{\"type\":\"Fuse\"},"
      "\"model\":{\"type\":\"BPE\",\"vocab\":{\"1\":0,\"2\":1,\"12\":2,\"a\":3,\"-\":4,\"--\":5},"
      "\"merges\":[[\"1\",\"2\"],[\"-\",\"-\"]]}}",
      "12a--a 1-2", 8,
      { 0, 1, 3, 5, 3, 0, 4, 1 },
      "12a--a1-2" },
    { "digits together",
      "{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\","
      "\"individual_digits\":false},{\"type\":\"Punctuation\",\"behavior\":\"Isolated\"}]},"
      "\"decoder\":{\"type\":\"Fuse\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"1\":0,\"2\":1,"
      "\"12\":2,\"a\":3,\"-\":4,\"--\":5},\"merges\":[[\"1\",\"2\"],[\"-\",\"-\"]]}}",
      "12a--12", 5,
      { 2, 3, 4, 4, 2 },
      "12a--12" },
    { "added tokens",
      "{\"added_tokens\":[{\"id\":8,\"content\":\"One\",\"single_word\":true,\"special\":true},"
      "{\"id\":9,\"content\":\"[R]\",\"rstrip\":true,\"special\":true},{\"id\":10,\"content\":\"[L]"
      "\",\"lstrip\":true,\"special\":true},{\"id\":11,\"content\":\"zz\",\"normalized\":true}],"
      "\"normalizer\":{\"type\":\"Lowercase\"},\"decoder\":{\"type\":\"Fuse\"},"
      "\"model\":{\"type\":\"BPE\",\"vocab\":{\"x\":0,\"y\":1,\"z\":2,\" \":3,\"xy\":4,\"o\":5,"
      "\"n\":6,\"e\":7},\"merges\":[[\"x\",\"y\"]]}}",
      "One xy [R]  x [L]y zz ZzxOne y", 18,
      { 8, 3, 4, 3, 9, 0, 10, 1, 3, 11, 3, 11, 0, 5, 6, 7, 3, 1 },
      "One xy [R]x[L]y zz zzxone y" },
    { "ends of words",
      "{\"pre_tokenizer\":{\"type\":\"WhitespaceSplit\"},\"decoder\":{\"type\":\"BPEDecoder\","
      "\"suffix\":\"</w>\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"b</w>\":2,"
      "\"ab</w>\":3,\"a</w>\":4},\"merges\":[[\"a\",\"b</w>\"]],\"end_of_word_suffix\":\"</w>\"}}",
      "ab bab a", 4,
      { 3, 1, 3, 4 },
      "ab bab a" },
    { "insides of words",
      "{\"pre_tokenizer\":{\"type\":\"WhitespaceSplit\"},\"decoder\":{\"type\":\"WordPiece\","
      "\"prefix\":\"##\",\"cleanup\":false},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,"
      "\"##a\":1,\"##b\":2,\"ab\":3,\"aba\":4},\"merges\":[[\"a\",\"##b\"],[\"ab\",\"##a\"]],"
      "\"continuing_subword_prefix\":\"##\"}}",
      "ab aba abb", 4,
      { 3, 4, 3, 2 },
      "ab aba abb" },
    { "matches removed",
      "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"-\"},"
      "\"behavior\":\"Removed\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"aa\":2,"
      "\"-\":3},\"merges\":[[\"a\",\"a\"]]}}",
      "aa-a-ab", 4,
      { 2, 0, 0, 1 },
      "aa a a b" },
    { "matches joined to what follows",
      "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"-\"},"
      "\"behavior\":\"MergedWithNext\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"-\":1,"
      "\"-a\":2,\"a-\":3},\"merges\":[[\"a\",\"-\"],[\"-\",\"a\"]]}}",
      "a-a--a", 4,
      { 0, 2, 1, 2 },
      "a -a - -a" },
    { "matches joined to what was before",
      "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"-\"},"
      "\"behavior\":\"MergedWithPrevious\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"-\":1,"
      "\"-a\":2,\"a-\":3},\"merges\":[[\"-\",\"a\"],[\"a\",\"-\"]]}}",
      "a-a--a", 4,
      { 3, 3, 1, 0 },
      "a- a- - a" },
    { "what looks behind",
      "{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\","
      "\"pattern\":{\"Regex\":\"(?<=a)A\"},\"behavior\":\"Isolated\"},{\"type\":\"ByteLevel\","
      "\"add_prefix_space\":false,\"use_regex\":false}]},\"decoder\":{\"type\":\"ByteLevel\","
      "\"add_prefix_space\":false,\"use_regex\":true},\"model\":{\"type\":\"BPE\","
      "\"vocab\":{\"a\":0,\"A\":1,\"aA\":2,\"\xc4\xa0\":3},\"merges\":[[\"a\",\"A\"]]}}",
      "aA AaA", 6,
      { 0, 1, 3, 1, 0, 1 },
      "aA AaA" },
    { "an added token and a piece of the same bytes",
      "{\"added_tokens\":[{\"id\":3,\"content\":\" a\",\"single_word\":true}],"
      "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true},"
      "\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"use_regex\":true},"
      "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"\xc4\xa0\":1,\"\xc4\xa0" "a\":2},"
      "\"merges\":[[\"\xc4\xa0\",\"a\"]]}}",
      "a a aa a", 5,
      { 0, 2, 2, 0, 2 },
      "a a aa a" },
    { "spaces taken out before words",
      "{\"added_tokens\":[{\"id\":0,\"content\":\"[UNK]\",\"special\":true}],"
      "\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\"},"
      "\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},\"decoder\":{\"type\":\"WordPiece\","
      "\"prefix\":\"##\",\"cleanup\":false},\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"[UNK]"
      "\",\"continuing_subword_prefix\":\"##\",\"max_input_chars_per_word\":6,\"vocab\":{\"[UNK]"
      "\":0,\"a\":1,\"##b\":2,\"b\":3,\"ab\":4,\"##a\":5,\"!\":6}}}",
      "a b! b ab\na b", 6,
      { 4, 6, 3, 5, 2, 4 },
      "ab ! bab ab" },
    { "lines that become marked spaces",
      "{\"normalizer\":{\"type\":\"Nmt\"},\"pre_tokenizer\":{\"type\":\"Sequence\","
      "\"pretokenizers\":[{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\","
      "\"prepend_scheme\":\"never\",\"split\":true},{\"type\":\"BertPreTokenizer\"}]},"
      "\"decoder\":{\"type\":\"Fuse\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"?\":0,\"a\":1,"
      "\"b\":2,\"\xe2\x96\x81\":3,\"\xe2\x96\x81" "a\":4,\"b\xe2\x96\x81\":5,\"ab\":6},"
      "\"merges\":[[\"a\",\"b\"],[\"\xe2\x96\x81\",\"a\"]],\"unk_token\":\"?\"}}",
      "ab\nab a\nb ab", 8,
      { 6, 3, 6, 4, 3, 2, 3, 6 },
      "ab\xe2\x96\x81" "ab\xe2\x96\x81" "a\xe2\x96\x81" "b\xe2\x96\x81" "ab" },
    { "an added token that is normalized with a prefix",
      "{\"added_tokens\":[{\"id\":5,\"content\":\"_ww\",\"rstrip\":true,\"normalized\":true}],"
      "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\","
      "\"prepend\":\"_\"},{\"type\":\"Lowercase\"}]},\"decoder\":{\"type\":\"Fuse\"},"
      "\"model\":{\"type\":\"BPE\",\"vocab\":{\"_\":0,\"w\":1,\"x\":2,\" \":3,\"xx\":4},"
      "\"merges\":[[\"x\",\"x\"]]}}",
      "_ww xx _WW xx", 8,
      { 5, 4, 3, 0, 1, 1, 3, 4 },
      NULL },
    { "a list of normalizers",
      "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Replace\","
      "\"pattern\":{\"String\":\"``\"},\"content\":\"\\\"\"},{\"type\":\"NFKD\"},"
      "{\"type\":\"StripAccents\"},{\"type\":\"Nmt\"},{\"type\":\"Replace\","
      "\"pattern\":{\"Regex\":\" {2,}\"},\"content\":\" \"},{\"type\":\"Strip\","
      "\"strip_left\":true,\"strip_right\":true}]},\"decoder\":{\"type\":\"Fuse\"},"
      "\"model\":{\"type\":\"BPE\",\"vocab\":{\"\\\"\":0,\"a\":1,\"b\":2,\" \":3,\"e\":4},"
      "\"merges\":[]}}",
      "  ``a\n\n b\xc3\xa9 \xef\xbd\x81  ", 7,
      { 0, 1, 3, 2, 4, 3, 1 },
      "\"a be a" },
};
/* clang-format on */
#define KINDS (sizeof kinds / sizeof *kinds)

/* The case's JSON with its bytes spelled out; freed by the caller. */
static char *json_of(const kind_case *k)
{
    const char *mark = strstr(k->json, "@BYTES@");
    gt_text out = { 0 };
    gt_text_put(&out, k->json, mark ? (size_t)(mark - k->json) : strlen(k->json));
    for (unsigned b = 0; mark && b < 256; b++)
        gt_text_printf(&out, "%s\"<0x%02X>\":%u", b ? "," : "", b, b + 3);
    gt_text_printf(&out, "%s", mark ? mark + 7 : "");
    return out.data;
}

static tokenizer *open_kind(const kind_case *k)
{
    char *json = json_of(k);
    tokenizer *t = NULL;
    CHECK_OK(tokenizer_parse(&t, json, strlen(json), k->name));
    free(json);
    return t;
}

static void check_ids(const char *what, const token_ids *ids, const uint32_t *want, size_t count)
{
    gt_text said = { 0 };
    for (size_t i = 0; i < ids->count; i++)
        gt_text_printf(&said, " %u", ids->data[i]);
    CHECKF(ids->count == count && !memcmp(ids->data, want, count * sizeof *want), "%s:%s", what,
           said.data ? said.data : "");
    gt_text_release(&said);
}

/* Encodes in parts of `chunk` bytes, larger ones where nothing could be encoded. */
static void encode_parts(tokenizer *t, const char *text, size_t size, size_t chunk, token_ids *ids)
{
    for (size_t at = 0, wide = chunk, used; at < size; at += used) {
        const size_t n = size - at < wide ? size - at : wide;
        if (!CHECK_OK(tokenizer_encode_part(t, text + at, n, at + n == size, &used, ids)))
            break;
        wide = used ? chunk : wide + 1 + wide / 4;
    }
}

static void every_kind_gives_hugging_faces_ids(void)
{
    for (size_t i = 0; i < KINDS; i++) {
        const kind_case *k = &kinds[i];
        const size_t size = strlen(k->text);
        tokenizer *t = open_kind(k);
        gt_text back = { 0 };
        token_ids ids = { 0 };
        if (!t)
            continue;
        CHECK_OK(tokenizer_encode(t, k->text, size, &ids));
        check_ids(k->name, &ids, k->ids, k->count);
        CHECK_OK(tokenizer_decode(t, ids.data, ids.count, &back));
        CHECKF(!k->back || (back.size == strlen(k->back) && !memcmp(back.data, k->back, back.size)), "%s: '%.*s'",
               k->name, (int)back.size, back.data);
        for (size_t chunk = 1; chunk <= size; chunk++) {
            ids.count = 0;
            encode_parts(t, k->text, size, chunk, &ids);
            check_ids(k->name, &ids, k->ids, k->count);
        }
        token_ids_release(&ids);
        gt_text_release(&back);
        tokenizer_close(t);
    }
}

/* More than a block of text, so that blocks are cut, against the same text in parts. */
static void long_texts_have_the_same_ids_in_parts(void)
{
    enum { TIMES = 1500 };
    for (size_t i = 0; i < KINDS; i++) {
        tokenizer *t = open_kind(&kinds[i]);
        token_ids whole = { 0 }, parts = { 0 };
        gt_text text = { 0 };
        gt_random r;
        /* Some of these vocabularies have no token for what would stand between. */
        const uint32_t between = tokenizer_encode(t, " \n", 2, &whole) ? 1 : 4;
        whole.count = 0;
        gt_random_init(&r, 5, i);
        for (int n = 0; n < TIMES; n++)
            gt_text_printf(&text, "%s%s", kinds[i].text,
                           (const char *[]){ "", "\n", " ", "  " }[gt_random_below(&r, between)]);
        CHECK_OK(tokenizer_encode(t, text.data, text.size, &whole));
        encode_parts(t, text.data, text.size, 4099, &parts);
        CHECKF(whole.count == parts.count && whole.count > TIMES
                   && !memcmp(whole.data, parts.data, whole.count * sizeof *whole.data),
               "%s: %zu and %zu ids", kinds[i].name, whole.count, parts.count);
        token_ids_release(&whole);
        token_ids_release(&parts);
        gt_text_release(&text);
        tokenizer_close(t);
    }
}

static void what_was_read_is_written_as_it_was(void)
{
    char *folder = gt_path_join(check_folder(), "kept");
    for (size_t i = 0; i < KINDS; i++) {
        tokenizer *t = open_kind(&kinds[i]), *again = NULL;
        char *json = json_of(&kinds[i]), *path = gt_path_join(folder, "tokenizer.json"), *text = NULL;
        CHECK_OK(tokenizer_save(t, folder));
        CHECK_OK(gt_file_read(&text, NULL, path, 1 << 20));
        CHECKF(text && !strcmp(text, json), "%s", kinds[i].name);
        if (CHECK_OK(tokenizer_open(&again, folder)))
            CHECKF(tokenizer_hash(t) == tokenizer_hash(again) && !strcmp(tokenizer_name(t), tokenizer_name(again)),
                   "%s", kinds[i].name);
        free(json);
        free(path);
        free(text);
        tokenizer_close(t);
        tokenizer_close(again);
    }
    free(folder);
}

/* Every change that changes ids changes the number. */
static void a_hash_covers_what_cuts_a_text(void)
{
    static const char *const changes[][2] = {
        { "\"lowercase\":true", "\"lowercase\":false" },
        { "\"max_input_chars_per_word\":6", "\"max_input_chars_per_word\":7" },
        { "\"unk_token\":\"[UNK]\"", "\"unk_token\":\"[CLS]\"" },
        { "BertPreTokenizer", "WhitespaceSplit" },
        { "\"content\":\"[CLS]\"", "\"content\":\"[CLS]\",\"lstrip\":true" }
    };
    uint64_t seen[8];
    tokenizer *t = open_kind(&kinds[0]);
    seen[0] = tokenizer_hash(t);
    tokenizer_close(t);
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        const char *json = kinds[0].json, *at = strstr(json, changes[i][0]);
        gt_text changed = { 0 };
        if (!CHECKF(at, "%s", changes[i][0]))
            return;
        gt_text_put(&changed, json, (size_t)(at - json));
        gt_text_printf(&changed, "%s%s", changes[i][1], at + strlen(changes[i][0]));
        if (CHECK_OK(tokenizer_parse(&t, changed.data, changed.size, "changed"))) {
            seen[i + 1] = tokenizer_hash(t);
            for (size_t j = 0; j <= i; j++)
                CHECKF(seen[j] != seen[i + 1], "'%s'", changes[i][1]);
            tokenizer_close(t);
        }
        gt_text_release(&changed);
    }
}

static void what_has_no_token_is_named(void)
{
    tokenizer *t = open_kind(&kinds[0]);        /* lower-cased WordPiece: no bytes */
    token_ids ids = { 0 };
    CHECK_FAILS(tokenizer_encode(t, "caf \xff", 5, &ids), GT_MISMATCH, "byte 4: byte 0xff is not UTF-8");
    CHECK_OK(tokenizer_encode(t, "a", 1, &ids));            /* and goes on with the next text */
    CHECK(tokenizer_continues(t, 5) && !tokenizer_continues(t, 4) && !tokenizer_continues(t, 1)
          && tokenizer_is_special(t, 1) && tokenizer_id(t, "##want") == 5 && tokenizer_id(t, "[CLS]") == 1);
    tokenizer_close(t);
    t = open_kind(&kinds[2]);                   /* byte fallback */
    ids.count = 0;
    CHECK_OK(tokenizer_encode(t, "Hello\xff", 6, &ids));
    CHECK(ids.count == 2 && ids.data[1] == 258);
    tokenizer_close(t);
    t = open_kind(&kinds[11]);                  /* no unknown token */
    CHECK_FAILS(tokenizer_encode(t, "12 z", 4, &ids), GT_MISMATCH, "no token for character 'z' (U+007A)");
    tokenizer_close(t);
    token_ids_release(&ids);
}

/* --- files of other forms ---------------------------------------------------------------------- */

static tokenizer *open_file(const char *name, const void *data, size_t size)
{
    char *path = gt_path_join(check_folder(), name);
    tokenizer *t = NULL;
    CHECK_OK(gt_file_write(path, data, size));
    CHECK_OK(tokenizer_open(&t, path));
    free(path);
    return t;
}

static void check_text(tokenizer *t, const char *text, const uint32_t *want, size_t count)
{
    token_ids ids = { 0 };
    CHECK_OK(tokenizer_encode(t, text, strlen(text), &ids));
    check_ids(text, &ids, want, count);
    token_ids_release(&ids);
}
#define CHECK_TEXT(t, text, ...) \
    check_text(t, text, (const uint32_t[]){ __VA_ARGS__ }, sizeof((const uint32_t[]){ __VA_ARGS__ }) / sizeof(uint32_t))

#define CASED "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nHello\nhello\n##s\n,\ncafe\n"
#define UNCASED "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhello\n##s\n,\ncafe\n"

/* Case is told by the tokens, where no tokenizer_config.json says it. */
static void vocab_txt_is_a_tokenizer(void)
{
    tokenizer *t = open_file("cased_vocab.txt", CASED, sizeof CASED - 1);
    if (t) {
        CHECK(!strcmp(tokenizer_name(t), "wordpiece") && tokenizer_vocab(t) == 10);
        CHECK_TEXT(t, "Hellos, hello [MASK]", 5, 7, 8, 6, 4);
        CHECK_TEXT(t, "caf\xc3\xa9", 1);
    }
    tokenizer_close(t);
    t = open_file("uncased_vocab.txt", UNCASED, sizeof UNCASED - 1);
    if (t) {
        token_ids ids = { 0 }, types = { 0 };
        CHECK_TEXT(t, "Hellos CAF\xc3\x89", 5, 6, 8);
        CHECK_OK(tokenizer_encode_template(t, "hello", 5, "cafe", 4, &ids, &types));
        check_ids("a pair", &ids, (const uint32_t[]){ 2, 5, 3, 8, 3 }, 5);
        check_ids("its types", &types, (const uint32_t[]){ 0, 0, 0, 1, 1 }, 5);
        token_ids_release(&ids);
        token_ids_release(&types);
    }
    tokenizer_close(t);

    char *folder = gt_path_join(check_folder(), "bert"), *vocab = gt_path_join(folder, "vocab.txt");
    char *config = gt_path_join(folder, "tokenizer_config.json");
    static const char lower[] =
        "{\"do_lower_case\":true,\"cls_token\":\"[CLS]\",\"tokenizer_class\":\"BertTokenizer\"}";
    CHECK_OK(gt_folder_make(folder));
    CHECK_OK(gt_file_write(vocab, CASED, sizeof CASED - 1));
    CHECK_OK(gt_file_write(config, lower, sizeof lower - 1));
    if (CHECK_OK(tokenizer_open(&t, folder))) {
        CHECK_TEXT(t, "Hello", 6);
        tokenizer_close(t);
    }
    CHECK_OK(gt_file_write(vocab, "hello\n", 6));
    CHECK_FAILS(tokenizer_open(&t, folder), GT_FORMAT, "vocab.txt': it has no line [UNK]");
    CHECK_OK(gt_file_write(vocab, "[UNK]\na\na\n", 10));
    CHECK_FAILS(tokenizer_open(&t, folder), GT_FORMAT, "line 3, 'a', is there twice");
    CHECK_OK(gt_file_write(vocab, "[UNK]\n\xff\n", 8));
    CHECK_FAILS(tokenizer_open(&t, folder), GT_FORMAT, "line 2 is not UTF-8");
    CHECK_OK(gt_file_write(vocab, "version https://git-lfs.github.com/spec/v1\n", 43));
    CHECK_FAILS(tokenizer_open(&t, folder), GT_FORMAT, "git-lfs");
    free(folder);
    free(vocab);
    free(config);
}

/* One field of a protocol buffer: bytes. */
static void put_field(gt_text *out, int number, const void *data, size_t size)
{
    gt_text_put(out, (const char[]){ (char)(number << 3 | 2), (char)size }, 2);
    gt_text_put(out, data, size);
}

static void put_piece(gt_text *out, const char *text, float score, int type)
{
    gt_text p = { 0 };
    put_field(&p, 1, text, strlen(text));
    gt_text_put(&p, "\x15", 1);
    gt_text_put(&p, &score, 4);
    gt_text_put(&p, (const char[]){ 0x18, (char)type }, 2);
    put_field(out, 1, p.data, p.size);
    gt_text_release(&p);
}

/* kind: 1 unigram, 2 bpe; a space in front, no spaces taken away. */
static void put_specs(gt_text *out, char kind)
{
    put_field(out, 2, (const char[]){ 0x18, kind }, 2);
    put_field(out, 3, (const char[]){ 0x18, 1, 0x20, 0, 0x28, 1 }, 6);
}

#define S "\xe2\x96\x81"

static void put_pieces(gt_text *out)
{
    put_piece(out, "<unk>", 0, 2);
    put_piece(out, "<s>", 0, 3);
    put_piece(out, S "a", -1, 1);
    put_piece(out, "ab", -2, 1);
    put_piece(out, S, -3, 1);
    put_piece(out, "a", -4, 1);
    put_piece(out, "b", -5, 1);
}

static void sentencepiece_models_are_read(void)
{
    static const struct {
        char kind;
        const char *name;
    } models[] = { { 2, "bpe" }, { 1, "unigram" } };
    for (size_t i = 0; i < 2; i++) {
        gt_text file = { 0 };
        put_pieces(&file);
        put_specs(&file, models[i].kind);
        tokenizer *t = open_file("tokenizer.model", file.data, file.size), *again;
        char *folder = gt_path_join(check_folder(), "saved");
        if (t) {
            CHECK(!strcmp(tokenizer_name(t), models[i].name) && tokenizer_vocab(t) == 7);
            /* BPE takes the best pair first, so _a; Unigram the best sum: _a b is -6, _ ab -5. */
            if (models[i].kind == 2) {
                CHECK_TEXT(t, "ab  ab", 2, 6, 4, 2, 6);
            } else {
                CHECK_TEXT(t, "ab  ab", 4, 3, 4, 4, 3);
            }
            CHECK_TEXT(t, "xya", 4, 0, 5);
            CHECK_OK(tokenizer_save(t, folder));
            if (CHECK_OK(tokenizer_open(&again, folder)))
                CHECK(tokenizer_hash(again) == tokenizer_hash(t));
            tokenizer_close(again);
        }
        tokenizer_close(t);
        char *path = gt_path_join(check_folder(), "cut.model");
        for (size_t size = 1; size < file.size; size++) {
            CHECK_OK(gt_file_write(path, file.data, size));
            if (!tokenizer_open(&t, path))          /* a field less is a model as well */
                tokenizer_close(t);
            else
                CHECKF(strstr(gt_message(), "cut.model") && !strchr(gt_message(), '\n'), "%s", gt_message());
        }
        CHECK_OK(gt_file_write(path, file.data, 9));
        CHECK_FAILS(tokenizer_open(&t, path), GT_FORMAT, "not a SentencePiece model, or cut");
        free(path);
        free(folder);
        gt_text_release(&file);
    }
}

static void sentencepiece_models_are_refused_by_name(void)
{
    static const struct {
        const char *spec;
        int number;
        size_t size;
        gt_status code;
        const char *says;
    } cases[] = {
        { "\x18\x03", 2, 2, GT_UNSUPPORTED, "words or characters" },
        { "\xc0\x01\x01", 2, 3, GT_UNSUPPORTED, "treat_whitespace_as_suffix" },
        { "\x28\0", 3, 2, GT_UNSUPPORTED, "escape_whitespaces" },
        { "\x12\x01x", 3, 3, GT_FORMAT, "is cut or no such map" },
        { "\x12\x01x", 5, 3, GT_UNSUPPORTED, "a denormalizer" },
        { "\x0a\x01z\x18\x05", 1, 5, GT_UNSUPPORTED, "piece 7 is of type 5" },
        { "\x0a\0", 1, 2, GT_FORMAT, "piece 7 has no text" },
        { "\x0a\x01"
          "a",
          1, 3, GT_FORMAT, "same text" },
        { "\x0a\x01\xff", 1, 3, GT_FORMAT, "piece 7 is not UTF-8" },
    };
    char *path = gt_path_join(check_folder(), "refused.model");
    tokenizer *t;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        gt_text file = { 0 };
        put_pieces(&file);
        put_specs(&file, 1);
        put_field(&file, cases[i].number, cases[i].spec, cases[i].size);
        CHECK_OK(gt_file_write(path, file.data, file.size));
        CHECK_FAILS(tokenizer_open(&t, path), cases[i].code, cases[i].says);
        gt_text_release(&file);
    }
    free(path);
}

/* The class beside says whether the ids are the model's own, and what comes around a text. */
static void classes_say_how_a_model_is_used(void)
{
    static const struct {
        const char *file, *config;
        size_t single, pair;
        const char *says;
    } cases[] = {
        { "tokenizer.model", "{}", 1, 2, NULL },
        { "tokenizer.model", "{\"tokenizer_class\":\"LlamaTokenizerFast\",\"add_bos_token\":false}", 0, 0, NULL },
        { "tokenizer.model", "{\"tokenizer_class\":\"GemmaTokenizer\",\"add_eos_token\":true}", 2, 4, NULL },
        { "spiece.model", "{\"tokenizer_class\":\"T5Tokenizer\"}", 1, 2, NULL },
        { "spiece.model", "{}", 0, 0, "'(not said)' may number its pieces" },
        { "tokenizer.model", "{\"tokenizer_class\":\"XLMRobertaTokenizer\"}", 0, 0,
          "'XLMRobertaTokenizer' may number" },
        { "sentencepiece.bpe.model", "{}", 0, 0, "may number its pieces in another way" },
    };
    gt_text file = { 0 };
    put_piece(&file, "<unk>", 0, 2);
    put_piece(&file, "<bos>", 0, 3);
    put_piece(&file, "<eos>", 0, 3);
    put_piece(&file, S "a", -1, 1);
    put_piece(&file, S, -2, 1);
    put_piece(&file, "a", -3, 1);
    put_specs(&file, 2);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *folder = gt_path_join(check_folder(), "classes"), *model = gt_path_join(folder, cases[i].file);
        char *config = gt_path_join(folder, "tokenizer_config.json");
        tokenizer *t;
        CHECK_OK(gt_folder_remove(folder));
        CHECK_OK(gt_folder_make(folder));
        CHECK_OK(gt_file_write(model, file.data, file.size));
        CHECK_OK(gt_file_write(config, cases[i].config, strlen(cases[i].config)));
        if (cases[i].says) {
            CHECK_FAILS(tokenizer_open(&t, folder), GT_UNSUPPORTED, cases[i].says);
        } else if (CHECK_OK(tokenizer_open(&t, folder))) {
            CHECK(tokenizer_eot(t) == 2);
            CHECKF(tokenizer_frame_size(t, 0) == cases[i].single && tokenizer_frame_size(t, 1) == cases[i].pair,
                   "case %zu", i);
            CHECK_TEXT(t, "a a", 3, 3);
            tokenizer_close(t);
        }
        free(folder);
        free(model);
        free(config);
    }
    gt_text_release(&file);
}

static void put_llama2c(gt_text *out, const char *text, float score)
{
    const int32_t size = (int32_t)strlen(text);
    gt_text_put(out, &score, 4);
    gt_text_put(out, &size, 4);
    gt_text_put(out, text, (size_t)size);
}

static void llama2c_tokenizers_are_read(void)
{
    gt_text file = { 0 };
    const uint32_t longest = 7;
    gt_text_put(&file, &longest, 4);
    put_llama2c(&file, "<unk>", 0);
    put_llama2c(&file, "\n<s>\n", 0);
    put_llama2c(&file, "\n</s>\n", 0);
    for (unsigned b = 0; b < 256; b++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", b);
        put_llama2c(&file, name, 0);
    }
    put_llama2c(&file, " a", -1);
    put_llama2c(&file, "ab", -2);
    put_llama2c(&file, " ", -3);
    put_llama2c(&file, "a", -4);
    put_llama2c(&file, "b", -5);
    tokenizer *t = open_file("tok.bin", file.data, file.size);
    token_ids ids = { 0 };
    if (t) {
        CHECK(tokenizer_vocab(t) == 264 && tokenizer_eot(t) == 2 && tokenizer_id(t, "<s>") == 1);
        CHECK_TEXT(t, "ab\nz", 259, 263, 13, 125);
        CHECK_OK(tokenizer_encode_template(t, "ab", 2, NULL, 0, &ids, NULL));
        check_ids("framed", &ids, (const uint32_t[]){ 1, 259, 263 }, 3);
    }
    token_ids_release(&ids);
    tokenizer_close(t);
    char *path = gt_path_join(check_folder(), "cut.bin");
    CHECK_OK(gt_file_write(path, file.data, file.size - 1));
    CHECK_FAILS(tokenizer_open(&t, path), GT_FORMAT, "piece 263 is cut or longer than the longest, 7 bytes");
    CHECK_OK(gt_file_write(path, "\0\0\0\0", 4));
    CHECK_FAILS(tokenizer_open(&t, path), GT_FORMAT, "not a tokenizer of llama2.c");
    free(path);
    gt_text_release(&file);
}

/* A folder of GPT-2's files, with what tokenizer_config.json says of it. */
static void classes_of_vocab_json_say_how_it_is_used(void)
{
    static const char vocab[] =
        "{\"<s>\":0,\"</s>\":1,\"a\":2,\"\\u0120\":3,\"\\u0120a\":4,\"1\":5,\"11\":6,\"\\u00c3\":7,\"\\u00a9\":8,\"\\u00c3\\u00a9\":9,"
        "\"<mask>\":10}";
    static const char merges[] = "#version: 0.2\n\xc4\xa0 a\n1 1\n\xc3\x83 \xc2\xa9\n";
    static const struct {
        const char *config, *text;
        size_t count;
        uint32_t ids[8];
    } cases[] = {
        { "{}", "a a11", 3, { 2, 4, 6 } },
        { "{\"add_prefix_space\":true}", "a a11", 3, { 4, 4, 6 } },
        { "{\"tokenizer_class\":\"Qwen2Tokenizer\"}", "a11\xc3\xa9", 4, { 2, 5, 5, 9 } },
        { "{\"tokenizer_class\":\"RobertaTokenizer\",\"mask_token\":{\"content\":\"<mask>\",\"lstrip\":true},"
          "\"bos_token\":\"<s>\",\"eos_token\":\"</s>\"}",
          "a <mask>a</s>",
          4,
          { 2, 10, 2, 1 } },
    };
    char *folder = gt_path_join(check_folder(), "pair"), *saved = gt_path_join(check_folder(), "pair-saved");
    char *paths[3] = { gt_path_join(folder, "vocab.json"), gt_path_join(folder, "merges.txt"),
                       gt_path_join(folder, "tokenizer_config.json") };
    CHECK_OK(gt_folder_make(folder));
    CHECK_OK(gt_file_write(paths[0], vocab, sizeof vocab - 1));
    CHECK_OK(gt_file_write(paths[1], merges, sizeof merges - 1));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tokenizer *t, *again;
        CHECK_OK(gt_file_write(paths[2], cases[i].config, strlen(cases[i].config)));
        if (!CHECK_OK(tokenizer_open(&t, folder)))
            continue;
        check_text(t, cases[i].text, cases[i].ids, cases[i].count);
        CHECK(tokenizer_frame_size(t, 1) == (i == 3 ? 4 : 0));
        CHECK_OK(tokenizer_save(t, saved));
        if (CHECK_OK(tokenizer_open(&again, saved))) {
            CHECKF(tokenizer_hash(t) == tokenizer_hash(again), "case %zu", i);
            check_text(again, cases[i].text, cases[i].ids, cases[i].count);
            CHECK(tokenizer_frame_size(again, 1) == tokenizer_frame_size(t, 1));
            tokenizer_close(again);
        }
        tokenizer_close(t);
    }
    for (int i = 0; i < 3; i++)
        free(paths[i]);
    free(folder);
    free(saved);
}

/* The published ids of BERT's uncased vocabulary for 46 hard texts. */
static void bert_gives_the_published_ids(void)
{
    static const char mark[] = "\n__ggml_vocab_test__\n";
    char *text, *want, *line, *path;
    size_t length = 0;
    tokenizer *t;
    if (!check_shared("data/bert_uncased_vocab.txt")
        || !check_shared("reference/token_vectors/ggml-vocab-bert-bge.gguf.out")) {
        check_skip("no reference/token_vectors");
        return;
    }
    path = strdup(check_shared("data/bert_uncased_vocab.txt"));
    CHECK_OK(gt_file_read(&text, &length, check_shared("reference/token_vectors/ggml-vocab-gpt-2.gguf.inp"), 1 << 20));
    CHECK_OK(gt_file_read(&want, NULL, check_shared("reference/token_vectors/ggml-vocab-bert-bge.gguf.out"), 1 << 20));
    CHECK_OK(tokenizer_open(&t, path));
    CHECK(tokenizer_vocab(t) == 30522 && tokenizer_id(t, "[MASK]") == 103 && tokenizer_id(t, "[CLS]") == 101);
    int rows = 0;
    line = want;
    for (char *row = text, *next; row && row < text + length; row = next, rows++) {
        token_ids ids = { 0 };
        gt_text said = { 0 };
        next = strstr(row, mark);
        const size_t size = next ? (size_t)(next - row) : strlen(row);
        next = next ? next + strlen(mark) : NULL;
        char *end = strchr(line, '\n');
        if (end)
            *end = '\0';
        CHECK_OK(tokenizer_encode(t, row, size, &ids));
        for (size_t i = 0; i < ids.count; i++)
            gt_text_printf(&said, " %u", ids.data[i]);
        CHECKF(!strcmp(said.data ? said.data : "", line), "row %d: '%.*s'", rows, (int)size, row);
        line = end ? end + 1 : line + strlen(line);
        token_ids_release(&ids);
        gt_text_release(&said);
    }
    CHECKF(rows == 46, "%d rows", rows);
    tokenizer_close(t);
    free(path);
    free(text);
    free(want);
}

const check_case check_cases[] = {
    CASE(every_kind_gives_hugging_faces_ids),
    CASE(long_texts_have_the_same_ids_in_parts),
    CASE(what_was_read_is_written_as_it_was),
    CASE(a_hash_covers_what_cuts_a_text),
    CASE(what_has_no_token_is_named),
    CASE(vocab_txt_is_a_tokenizer),
    CASE(sentencepiece_models_are_read),
    CASE(sentencepiece_models_are_refused_by_name),
    CASE(classes_say_how_a_model_is_used),
    CASE(llama2c_tokenizers_are_read),
    CASE(classes_of_vocab_json_say_how_it_is_used),
    CASE(bert_gives_the_published_ids),
    { 0 }
};
