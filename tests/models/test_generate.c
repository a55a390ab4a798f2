/* SPDX-License-Identifier: MIT */
/* tests/models/test_generate.c - text from a model: what is fed and how, caches, what may be drawn, and a model that is
 * cut over several stages. */
#include "tests/check.h"

#include "host/base/file.h"
#include "models/generate.h"
#include "models/generate_cut.h"
#include "models/gpt2.h"
#include "models/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { V = 31 };

/* A GPT-2 whose random weights say something. */
static model_config small(int layers, int context)
{
    return (model_config){
        .family = "gpt2",
        .name = "small",
        .layers = layers,
        .heads = 2,
        .channels = 24,
        .inner = 40,
        .context = context,
        .vocab = V,
        .eps = 1e-5f,
        .init_deviation = 0.3f
    };
}

/* Generation scales attention as training does: the chunk of a prompt and single tokens after it. */
static void generation_scales_attention_as_described(void)
{
    const model_config usual = small(2, 40);
    model_config c = usual;
    uint32_t prompt[35];
    float logits[2][31], x[72 * 24];
    dev_device *d = NULL;
    c.own[GPT2_UNSCALED] = c.own[GPT2_BY_LAYER] = 1.0;
    for (uint32_t i = 0; i < 35; i++)
        prompt[i] = i * i % 31;
    if (!CHECK_OK(dev_open(&d, getenv("GT_TEST_DEVICE"))))
        return;
    for (int way = 0; way < 3; way++) { /* usual, made up for, not made up for */
        generate *g = NULL;
        if (!CHECK_OK(generate_create(&g, d, way ? &c : &usual, DTYPE_F32, NULL)))
            break;
        params *p = generate_params(g);
        CHECK_OK(params_init(p, 3));
        for (int layer = 0; way == 1 && layer < 2; layer++) {
            const int i = params_find(p, layer ? "h.1.attn.c_attn.weight" : "h.0.attn.c_attn.weight");
            CHECK_OK(params_read(p, i, x)); /* biases begin as 0 */
            for (int k = 0; k < 24 * 24; k++)
                x[k] *= (float)(layer + 1) / sqrtf(12.0f);
            CHECK_OK(params_write(p, i, x));
        }
        CHECK_OK(generate_refresh(g));
        CHECK_OK(generate_feed(g, prompt, 35));
        memcpy(logits[way > 0], generate_logits(g), sizeof logits[0]);
        float most = 0.0f;
        for (int i = 0; i < 31; i++)
            most = fmaxf(most, fabsf(logits[0][i] - logits[1][i]));
        CHECKF(!way || (way == 1 ? most < 1e-4f : most > 1e-2f), "way %d: %g", way, (double)most);
        generate_release(g);
    }
    dev_close(d);
}

/* Logits of a head of twice the embedding are twice those of the embedding. */
static void generation_uses_a_head_of_its_own(void)
{
    const model_config usual = small(1, 40);
    const uint32_t prompt[] = { 1, 2, 4 };
    model_config untied = usual;
    float tied[31], x[72 * 24];
    dev_device *d = NULL;
    generate *g[2] = { NULL, NULL };
    untied.untied_head = 1;
    if (CHECK_OK(dev_open(&d, getenv("GT_TEST_DEVICE"))) && CHECK_OK(generate_create(&g[0], d, &usual, DTYPE_F32, NULL))
        && CHECK_OK(generate_create(&g[1], d, &untied, DTYPE_F32, NULL))) {
        params *a = generate_params(g[0]), *b = generate_params(g[1]);
        CHECK_OK(params_init(a, 3));
        CHECK_OK(params_init(b, 3));
        for (int i = 0; i < params_count(a); i++) {
            CHECK_OK(params_read(a, i, x));
            CHECK_OK(params_write(b, params_find(b, params_info(a, i)->name), x));
        }
        CHECK_OK(params_read(a, params_find(a, "wte.weight"), x));
        for (int k = 0; k < 31 * 24; k++)
            x[k] *= 2.0f;
        CHECK_OK(params_write(b, params_find(b, "lm_head.weight"), x));
        for (int i = 0; i < 2; i++) {
            CHECK_OK(generate_refresh(g[i]));
            CHECK_OK(generate_feed(g[i], prompt, 3));
        }
        memcpy(tied, generate_logits(g[0]), sizeof tied);
        for (int i = 0; i < 31; i++)
            CHECKF(fabsf(generate_logits(g[1])[i] - 2.0f * tied[i]) < 1e-5f, "token %d", i);
    }
    generate_release(g[0]);
    generate_release(g[1]);
    dev_close(d);
}

/* What may not be drawn is drawn on no path, however likely the model finds it. Of 31 ids the multiples
 * of 3 may. */
static void only_what_may_be_drawn_is(void)
{
    const model_config c = small(1, 40);
    static const sampling_rule samplings[] = {
        { .temperature = 0.0 },
        { .temperature = 1.0, .top_k = 1 },
        { .temperature = 50.0, .top_k = 4 },
        { .temperature = 50.0 },
        { .temperature = 50.0, .top_k = 30 },
        { .temperature = 0.5, .top_k = 200 },
        { .temperature = 50.0, .top_p = 0.99, .min_p = 0.01, .repetition = 1.1 },
    };
    const uint32_t prompt[] = { 1, 2, 4 };
    unsigned char may[31] = { 0 };
    dev_device *d = NULL;
    generate *g = NULL;
    gt_random random;
    gt_random_init(&random, 7, 7);
    if (!CHECK_OK(dev_open(&d, getenv("GT_TEST_DEVICE"))) || !CHECK_OK(generate_create(&g, d, &c, DTYPE_F32, NULL)))
        goto out;
    CHECK_OK(params_init(generate_params(g), 3));
    CHECK_OK(generate_refresh(g));
    CHECK_FAILS(generate_allow(g, may), GT_MISUSE, "no token may be drawn");
    for (int i = 0; i < 31; i += 3)
        may[i] = 1;
    CHECK_OK(generate_allow(g, may));
    CHECK_OK(generate_feed(g, prompt, 3));
    for (size_t s = 0; s < sizeof samplings / sizeof *samplings; s++) {
        int seen[31] = { 0 }, kinds = 0;
        for (int draw = 0; draw < 60; draw++) {
            float z[31];
            uint32_t id = 0;
            int above = 0;
            memcpy(z, generate_logits(g), sizeof z);
            if (!CHECK_OK(generate_next(g, &samplings[s], &random, &id)))
                goto out;
            for (int i = 0; i < 31; i += 3)
                above += z[i] > z[id];
            CHECKF(id < 31 && id % 3 == 0, "sampling %zu drew %u", s, id);
            CHECKF(samplings[s].temperature > 0.0 || !above, "%d are likelier than %u", above, id);
            CHECKF(!samplings[s].top_k || above < samplings[s].top_k, "%d are likelier", above);
            kinds += !seen[id]++;
        }
        CHECKF(samplings[s].temperature < 50.0 || kinds > 3, "sampling %zu drew only %d", s, kinds);
    }
    memset(may, 1, sizeof may);
    CHECK_OK(generate_allow(g, may));
    for (int draw = 0, other = 0; draw < 60; draw++) {
        uint32_t id = 0;
        CHECK_OK(generate_next(g, &samplings[3], &random, &id));
        other += id % 3 != 0;
        CHECK(draw < 59 || other > 20);
    }
out:
    generate_release(g);
    dev_close(d);
}

/* A prompt gives the same logits however it is cut: whole chunks, a padded one, token by token, with the
 * caches full of another text. */
static void prompts_may_be_fed_in_any_parts(void)
{
    const model_config c = small(2, 80);
    enum { PROMPT = 70 };
    static const size_t parts[] = { PROMPT, 1, 2, 5, 33, 47, 64, 69 };
    uint32_t prompt[PROMPT];
    float first[31];
    dev_device *d = NULL;
    generate *g = NULL;
    for (int i = 0; i < PROMPT; i++)
        prompt[i] = (uint32_t)(i * i % 31);
    if (CHECK_OK(dev_open(&d, getenv("GT_TEST_DEVICE"))) && CHECK_OK(generate_create(&g, d, &c, DTYPE_F32, NULL))) {
        CHECK_OK(params_init(generate_params(g), 3));
        CHECK_OK(generate_refresh(g));
        for (size_t way = 0; way < sizeof parts / sizeof *parts; way++) {
            generate_restart(g);
            for (size_t at = 0; at < PROMPT; at += parts[way])
                CHECK_OK(generate_feed(g, prompt + at, PROMPT - at < parts[way] ? PROMPT - at : parts[way]));
            if (!way)
                memcpy(first, generate_logits(g), sizeof first);
            for (int i = 0; i < 31; i++)
                CHECKF(fabsf(generate_logits(g)[i] - first[i]) < 1e-4f, "in parts of %zu: token %d is %g, not %g",
                       parts[way], i, (double)generate_logits(g)[i], (double)first[i]);
        }
    }
    generate_release(g);
    dev_close(d);
}

/* Ids to text by llama2.c's tokenizer file: i32 longest, then of each id fp32 score, i32 length, bytes. */
static size_t text_of(char *out, size_t room, const unsigned char *file, size_t size, const uint32_t *ids, int count)
{
    size_t n = 0;
    for (int i = 0; i < count; i++) {
        size_t at = 4;
        uint32_t length = 0;
        for (uint32_t id = 0; id <= ids[i] && at + 8 <= size; id++) {
            at += id ? length : 0;
            memcpy(&length, file + at + 4, 4);
            at += 8;
        }
        /* the space that begins the first word after <s> is not of the text; <0x0A> is a byte */
        const size_t skip = i == 0 && file[at] == ' ';
        unsigned byte;
        if (length == 6 && sscanf((const char *)file + at, "<0x%2X>", &byte) == 1)
            out[n++] = (char)byte;
        else
            for (size_t k = skip; k < length && n + 1 < room; k++)
                out[n++] = (char)file[at + k];
    }
    out[n] = '\0';
    return n;
}

/* A story of 200 tokens that another program wrote with the same weights. */
static void a_llama2c_file_tells_its_story(void)
{
    const char *base = check_shared("reference/stories260K.bin");
    char *path = base ? strdup(base) : NULL, *tokens = NULL, *want = NULL, text[2048];
    size_t size = 0, wanted = 0;
    model_config c;
    dev_device *d = NULL;
    generate *g = NULL;
    uint32_t ids[200] = { 1 };
    if (!path) {
        check_skip("no ../shared/reference/stories260K.bin");
        return;
    }
    CHECK_OK(gt_file_read(&tokens, &size, check_shared("reference/tok512.bin"), 1 << 20));
    CHECK_OK(gt_file_read(&want, &wanted, check_shared("reference/stories260K_expected_greedy.txt"), 1 << 20));
    const sampling_rule likeliest = { .temperature = 0.0 };
    gt_random r;
    gt_random_init(&r, 1, 1);
    if (CHECK_OK(model_config_load(&c, path)) && CHECK_OK(dev_open(&d, getenv("GT_TEST_DEVICE")))
        && CHECK_OK(generate_create(&g, d, &c, DTYPE_F32, NULL)) && CHECK_OK(model_import(&c, generate_params(g), path))
        && CHECK_OK(generate_refresh(g)) && CHECK_OK(generate_feed(g, ids, 1))) {
        int n = 0;
        while (n < 200 && CHECK_OK(generate_next(g, &likeliest, &r, &ids[n])))
            n++;
        text_of(text, sizeof text, (const unsigned char *)tokens, size, ids, n);
        while (wanted && want[wanted - 1] == '\n')
            want[--wanted] = '\0';
        CHECKF(wanted > 300 && !strcmp(text, want), "it says: %s", text);
    }
    generate_release(g);
    dev_close(d);
    free(path);
    free(tokens);
    free(want);
}

/* A context longer than caches begin with: they grow on the way, or at once for a long prompt; and where it is
 * full text goes on from its last half. */
static void caches_grow_with_the_text(void)
{
    enum { N = 1060, MOST = 1100 };
    model_config c;
    dev_device *d = NULL;
    generate *g[2] = { NULL, NULL };
    static uint32_t ids[N];
    gt_random r;
    for (uint32_t i = 0; i < N; i++)
        ids[i] = i * i % 65;
    gt_random_init(&r, 5, 5);
    CHECK_OK(model_config_load(&c, "llama-tiny"));
    c.vocab = 65;
    c.layers = 1;
    c.context = MOST;
    c.init_deviation = 0.2f;
    if (!CHECK_OK(dev_open(&d, getenv("GT_TEST_DEVICE"))))
        return;
    for (int i = 0; i < 2; i++)
        if (!CHECK_OK(generate_create(&g[i], d, &c, DTYPE_F32, NULL))
            || !CHECK_OK(params_init(generate_params(g[i]), 3)) || !CHECK_OK(generate_refresh(g[i])))
            return;
    CHECK_OK(generate_feed(g[0], ids, N));
    CHECK_OK(generate_feed(g[1], ids, 1020));
    for (int i = 1020; i < N; i++)
        CHECK_OK(generate_feed(g[1], ids + i, 1));
    double off = 0.0, most = 0.0;
    for (int i = 0; i < c.vocab; i++) {
        off = fmax(off, fabs((double)generate_logits(g[0])[i] - (double)generate_logits(g[1])[i]));
        most = fmax(most, fabs((double)generate_logits(g[0])[i]));
    }
    CHECKF(most > 0.01 && off < 1e-5 * most, "off by %g of %g", off, most);
    for (int i = 0; i < MOST - N + 5; i++)
        CHECK_OK(generate_feed(g[1], ids + i, 1));
    generate_release(g[0]);
    generate_release(g[1]);
    dev_close(d);
}

/* ---- several stages ---------------------------------------------------------------------------------- */

enum { LONG = 77 };

/* A generator in so many stages, the first of them with what is over. */
static gt_status create_stages(generate **out, dev_device *d, const model_config *c, dtype storage, int stages)
{
    generate_place place[8];
    const int each = c->layers / stages;
    for (int s = 0; s < stages; s++)
        place[s] = (generate_place){ d, each };
    place[0].units += 1 + c->layers % stages;
    place[stages - 1].units++;
    gt_status st = generate_create_staged(out, place, stages, c, storage, NULL);
    for (int s = 0; !st && s < stages; s++)
        st = params_init(generate_params_of(*out, s), 3);
    return st ? st : generate_refresh(*out);
}

static void check_same_logits(const generate *a, const generate *b, int vocab, const char *when)
{
    double off = 0.0, most = 0.0;
    for (int i = 0; i < vocab; i++) {
        off = fmax(off, fabs((double)generate_logits(a)[i] - (double)generate_logits(b)[i]));
        most = fmax(most, fabs((double)generate_logits(a)[i]));
    }
    CHECKF(most > 0.01 && off <= 1e-5 * most, "%s: off by %g of %g", when, off, most);
}

/* A prompt in pieces that are in all stages at once, tokens one by one, another text, and one that goes on where the
 * context is full. */
static void feed_alike(generate *a, generate *b, const uint32_t *ids, int vocab, int context)
{
    static const int parts[] = { LONG, 1, 5, 40, 33 };
    const sampling_rule drawn = { .temperature = 1.0 };
    gt_random r[2];
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        generate_restart(a);
        generate_restart(b);
        for (int at = 0; at < LONG; at += parts[i]) {
            const size_t some = (size_t)(LONG - at < parts[i] ? LONG - at : parts[i]);
            CHECK_OK(generate_feed(a, ids + at, some));
            CHECK_OK(generate_feed(b, ids + at, some));
        }
        check_same_logits(a, b, vocab, "behind a prompt");
    }
    gt_random_init(&r[0], 7, 7);
    gt_random_init(&r[1], 7, 7);
    for (int i = LONG; i < context + 9; i++) {
        uint32_t one = 0, other = 1;
        CHECK_OK(generate_next(a, &drawn, &r[0], &one));
        CHECK_OK(generate_next(b, &drawn, &r[1], &other));
        CHECK(one == other);
    }
    check_same_logits(a, b, vocab, "from half a context on");
}

static void stages_together_say_what_the_model_does(void)
{
    static const struct {
        const char *preset;
        dtype storage;
        int layers, stages;
    } cases[] = {
        { NULL, DTYPE_F32, 5, 2 },         { NULL, DTYPE_F32, 5, 5 },         { NULL, DTYPE_BF16, 3, 3 },
        { "llama-tiny", DTYPE_F32, 4, 3 }, { "llama-tiny", DTYPE_F16, 2, 2 },
    };
    dev_device *d = NULL;
    uint32_t ids[LONG];
    if (!CHECK_OK(dev_open(&d, getenv("GT_TEST_DEVICE"))))
        return;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        generate *whole = NULL, *cut = NULL;
        model_config c = small(cases[i].layers, 90);
        if (cases[i].preset) {
            CHECK_OK(model_config_load(&c, cases[i].preset));
            c.layers = cases[i].layers;
            c.context = 90;
            c.vocab = 65;
            c.init_deviation = 0.2f;
        }
        for (uint32_t k = 0; k < LONG; k++)
            ids[k] = (k * k + k / 3) % (uint32_t)c.vocab;
        if (CHECK_OK(create_stages(&whole, d, &c, cases[i].storage, 1))
            && CHECK_OK(create_stages(&cut, d, &c, cases[i].storage, cases[i].stages))) {
            CHECK(generate_stage_count(cut) == cases[i].stages);
            feed_alike(whole, cut, ids, c.vocab, c.context);
        }
        generate_release(whole);
        generate_release(cut);
    }
    dev_close(d);
}

static void stages_must_make_the_model(void)
{
    const model_config c = small(3, 40);
    dev_device *d = NULL;
    generate *g = NULL;
    if (CHECK_OK(dev_open(&d, getenv("GT_TEST_DEVICE")))) {
        const generate_place place[] = { { d, 2 }, { d, 2 } };
        CHECK_FAILS(generate_create_staged(&g, place, 2, &c, DTYPE_F32, NULL), GT_MISUSE,
                    "stages of 4 units together, and it has 5");
        CHECK(!g);
    }
    dev_close(d);
}

/* ---- cuts --------------------------------------------------------------------------------------------- */

/* Bytes that a token reads of a unit, and that are held of it, by hand, in fp32. */
static double read_by_hand(const model_config *c, int unit)
{
    const double C = c->channels, I = c->inner;
    if (unit == 0)
        return 0.0;
    return 4.0 * (unit <= c->layers ? 4.0 * C + 4.0 * C * C + 4.0 * C + 2.0 * C * I + I + C : c->vocab * C + 2.0 * C);
}

static double held_by_hand(const model_config *c, int unit)
{
    const double C = c->channels, T = c->context;
    if (unit == 0)
        return 4.0 * (c->vocab + T) * C;
    return read_by_hand(c, unit) + (unit <= c->layers ? 4.0 * 2.0 * T * C : 0.0);
}

/* Seconds of the slowest of three stages that end at a, b and the last unit; INFINITY if one does not fit. */
static double slowest(const model_config *c, int a, int b, const double speed[3], const uint64_t memory[3])
{
    const int cut[4] = { 0, a, b, c->layers + 2 };
    double most = 0.0;
    for (int s = 0; s < 3; s++) {
        double read = 0.0, held = 0.0;
        for (int u = cut[s]; u < cut[s + 1]; u++) {
            read += read_by_hand(c, u);
            held += held_by_hand(c, u);
        }
        most = held > (double)memory[s] ? INFINITY : fmax(most, read / speed[s]);
    }
    return most;
}

/* Beside all cuts that there are. */
static void no_cut_is_faster(void)
{
    static const int device[] = { 0, 1, 2 };
    const model_config c = small(7, 40);
    const double layer = held_by_hand(&c, 1);
    gt_random r;
    int fits = 0;
    gt_random_init(&r, 3, 3);
    for (int round = 0; round < 60; round++) {
        double speed[3], best = INFINITY;
        uint64_t memory[3];
        int cut[4];
        for (int s = 0; s < 3; s++) {
            speed[s] = 0.1 + (double)gt_random_unit(&r);
            memory[s] = (uint64_t)(layer * (2.0 + 7.0 * (double)gt_random_unit(&r)));
        }
        for (int a = 2; a < c.layers; a++)
            for (int b = a + 1; b <= c.layers; b++)
                best = fmin(best, slowest(&c, a, b, speed, memory));
        if (!isfinite(best)) {
            CHECK_FAILS(generate_cut(cut, &c, DTYPE_F32, 3, speed, device, memory), GT_NO_MEMORY,
                        "'small' on these devices: its weights and caches take");
            continue;
        }
        fits++;
        if (CHECK_OK(generate_cut(cut, &c, DTYPE_F32, 3, speed, device, memory))) {
            const double mine = slowest(&c, cut[1], cut[2], speed, memory);
            CHECK(cut[0] == 0 && cut[1] >= 2 && cut[1] < cut[2] && cut[2] <= c.layers && cut[3] == c.layers + 2);
            CHECKF(mine <= best * (1.0 + 1e-9), "round %d: %g, and %g can be had", round, mine, best);
        }
    }
    CHECKF(fits > 10 && fits < 60, "%d of 60 fit", fits);
}

/* Two stages on one device have half of its memory each; in 16 bits a model takes half of it, too. */
static void a_device_of_two_stages_is_shared(void)
{
    static const int device[] = { 0, 0 };
    const double speed[] = { 1.0, 1.0 };
    const model_config c = small(4, 40);
    double all = 0.0;
    int cut[3];
    for (int u = 0; u < c.layers + 2; u++)
        all += held_by_hand(&c, u);
    const uint64_t enough = (uint64_t)(1.3 * all), little = (uint64_t)(0.8 * all);
    CHECK_OK(generate_cut(cut, &c, DTYPE_F32, 2, speed, device, &enough));
    CHECK_FAILS(generate_cut(cut, &c, DTYPE_F32, 2, speed, device, &little), GT_NO_MEMORY, "together they have");
    CHECK_OK(generate_cut(cut, &c, DTYPE_BF16, 2, speed, device, &little));
    CHECK_FAILS(generate_cut((int[8]){ 0 }, &c, DTYPE_F32, 5, (double[5]){ 0 }, (int[5]){ 0 }, &enough), GT_MISUSE,
                "it has 4 layers, and each stage needs one");
}

const check_case check_cases[] = {
    CASE(generation_scales_attention_as_described),
    CASE(generation_uses_a_head_of_its_own),
    CASE(only_what_may_be_drawn_is),
    CASE(prompts_may_be_fed_in_any_parts),
    CASE(caches_grow_with_the_text),
    CASE(a_llama2c_file_tells_its_story),
    CASE(stages_together_say_what_the_model_does),
    CASE(stages_must_make_the_model),
    CASE(no_cut_is_faster),
    CASE(a_device_of_two_stages_is_shared),
    { 0 }
};
