/* SPDX-License-Identifier: MIT */
/* tests/verbs/test_verbs.c - the verbs transport between two ends over devices that are made up:
 * every path of a transfer, every way to fail, and that nothing is left over.
 *
 * The fake counts what hardware would punish (see fake_verbs.h), and every case that moves
 * bytes ends by asking it. The same traffic runs over Soft-RoCE in soft_roce.sh.         */
#include "tests/verbs/test_verbs.h"

#include "host/base/log.h"
#include "net/transport/verbs_private.h"
#include "net/transport/verbs_survey.h"
#include "tests/verbs/fake_verbs.h"
#include "tests/verbs/verbs_ends.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static end a, b;

/* One RoCE device for both ends, with one address. */
static void one_device(void)
{
    fake_reset();
    fake_gid(fake_add("nic0"), "10.0.0.1", 3, FAKE_V2);
    net_verbs_api_replace(&fake_verbs);
}

/* Two devices an end, in two subnets; the second end's are the other way round. */
static void four_devices(int second_speed)
{
    fake_reset();
    fake_gid(fake_add("left0"), "10.1.0.1", 3, FAKE_V2);
    fake_device *d = fake_add("left1");
    fake_gid(d, "10.2.0.1", 5, FAKE_V2);
    d->speed = second_speed;
    d = fake_add("right0");
    fake_gid(d, "10.2.0.2", 1, FAKE_V2);
    d->speed = second_speed;
    fake_gid(fake_add("right1"), "10.1.0.2", 7, FAKE_V2);
    net_verbs_api_replace(&fake_verbs);
}

static gt_status open_ends(const net_config *config, const char *hca_a, const char *hca_b)
{
    net_config c = *config;
    c.hca = hca_a;
    gt_status st = end_open(&a, 0, &c);
    c.hca = hca_b;
    if (!st)
        st = end_open(&b, 1, &c);
    return st ? st : ends_link(&a, &b);
}

static void close_ends(void)
{
    end_close(&a);
    end_close(&b);
    CHECKF(fake.alive == 0, "%d objects are left", fake.alive);
    CHECKF(fake.violations == 0, "%d times: %s", fake.violations, fake.violation);
}

static gt_status messages(int count)
{
    static const size_t bodies[] = { 0, 1, 63, 120, 121, 1000, 8192 };
    gt_status st = GT_OK;
    for (int i = 0; !st && i < count; i++) {
        size_t body = bodies[i % 7];
        body = body > a.config.eager ? a.config.eager : body;
        a.expected_messages++;
        b.expected_messages++;
        st = end_say(&a, body);
        if (!st)
            st = end_say(&b, body);
    }
    return st ? st : ends_run(&a, &b, 5);
}

static gt_status windows(const size_t *sizes, int count, int times)
{
    gt_status st = GT_OK;
    for (int kind = 0; !st && kind < END_KINDS; kind++) {
        for (int i = 0; !st && i < count * times; i++) {
            st = end_window(&a, sizes[i % count], (end_kind)kind);
            if (!st && i % 3)
                st = end_window(&b, sizes[i % count], (end_kind)kind);
        }
        if (!st)
            st = ends_run(&a, &b, 5);
        if (!st) {
            end_forget(&a);
            end_forget(&b);
        }
    }
    return st;
}

static void traffic(void)
{
    static const size_t sizes[] = { 1,    8,     127,   128,   129,     4095,          8192,
                                    8193, 32767, 32768, 65537, 1 << 20, (1 << 20) + 1, 2500003 };
    CHECK_OK(messages(400));
    CHECK_OK(windows(sizes, sizeof sizes / sizeof *sizes, 2));
    CHECK_OK(windows((const size_t[]){ 40 }, 1, 80));
    CHECK(a.wrong + b.wrong + a.late_wakes + b.late_wakes == 0);
    CHECK(a.placed == a.opened && b.placed == b.opened && a.placed > 100);
}

static void bytes_arrive_under_every_setting(void)
{
    /* clang-format off */
    static const char *const settings[][3] = {
        { "chunk=1048576" }, { "inline=0" }, { "max_message=65536" }, { "immediate=0" },
        { "immediate=0", "inline=0", "chunk=4096" }, { "queue_pairs=4" }, { "queue_pairs=16", "immediate=0" },
        { "ib_mtu=1024", "inline=512" }, { "eager=256" }, { "eager=65536" }, { "adaptive=0" },
        { "adaptive=1073741824", "chunk=100000" }, { "chunk=64", "max_message=100" },
    };
    /* clang-format on */
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        for (int reorder = 0; reorder < 2; reorder++) {
            net_config c = end_config();
            one_device();
            fake.reorder = reorder;
            for (int k = 0; k < 3 && settings[i][k]; k++)
                CHECK(end_config_set(&c, settings[i][k]));
            CHECK_OK(open_ends(&c, "", ""));
            traffic();
            CHECKF(!c.max_message || fake.longest <= 8300 || fake.longest <= c.max_message, "a request of %zu bytes",
                   fake.longest);
            CHECK(c.immediate ? fake.immediates > 0 : fake.immediates == 0);
            CHECK(c.inline_bytes ? fake.inlined > 0 : fake.inlined == 0);
            close_ends();
        }
}

static void a_device_with_short_queues_is_never_overrun(void)
{
    static const int depths[] = { 8, 9, 16, 31 };
    for (size_t i = 0; i < sizeof depths / sizeof *depths; i++)
        for (int immediate = 0; immediate < 2; immediate++) {
            net_config c = end_config();
            one_device();
            fake.device[0].max_qp_wr = depths[i];
            fake.device[0].max_inline = 20;
            fake.reorder = 1;
            c.immediate = immediate;
            c.queue_pairs = 2;
            c.chunk = 20000;
            CHECK_OK(open_ends(&c, "", ""));
            CHECK(((net_verbs_link *)a.link)->lane[0].inline_limit <= 20);
            traffic();
            close_ends();
        }
}

static void rails_share_by_speed_and_may_reorder(void)
{
    static const size_t big[] = { 3000001, 100000, 32768, 5000 };
    for (int reorder = 0; reorder < 2; reorder++) {
        net_config c = end_config();
        char text[400];
        four_devices(32);
        fake.reorder = reorder;
        CHECK_OK(open_ends(&c, "left", "right"));
        a.ops->describe(a.link, text, sizeof text);
        CHECKF(strstr(text, "left0:1 10.1.0.1 <-> 10.1.0.2") && strstr(text, "left1:1 10.2.0.1 <-> 10.2.0.2"), "%s",
               text);
        CHECK_OK(messages(50));
        for (int i = 0; i < 4; i++)
            CHECK_OK(windows(big, 4, 3));
        CHECK(a.wrong + b.wrong == 0);
        const net_verbs_link *link = (net_verbs_link *)a.link;
        CHECK(link->rails == 2 && link->lane[1].posted > 0 && link->lane[2].posted > 0);
        close_ends();
    }
    /* 10 Gb/s beside 200: not worth the tail. */
    net_config c = end_config();
    four_devices(1);
    CHECK_OK(open_ends(&c, "left", "right"));
    CHECK(((net_verbs_link *)a.link)->rails == 1 && ((net_verbs_link *)b.link)->rails == 1);
    CHECK_OK(messages(50));
    close_ends();
}

static void completions_are_asked_for_rarely(void)
{
    net_config c = end_config();
    one_device();
    CHECK_OK(open_ends(&c, "", ""));
    CHECK_OK(messages(640));
    CHECKF(fake.signalled < fake.sends / 16, "%d of %d", fake.signalled, fake.sends);
    const char *name;
    uint64_t value, sent = 0;
    for (int i = 0; a.ops->counter(a.t, i, &name, &value); i++)
        if (!strcmp(name, "messages"))
            sent = value;
    CHECK(sent == 640);
    close_ends();
}

static void many_small_transfers_take_few_posts_and_completions(void)
{
    net_config c = end_config();
    one_device();
    CHECK_OK(open_ends(&c, "", ""));
    int sends = fake.sends;
    for (int i = 0; i < 60; i++)
        CHECK_OK(end_say(&a, 20));
    CHECKF(fake.sends == sends, "%d messages went before they were let go", fake.sends - sends);
    b.expected_messages = 60;
    CHECK_OK(ends_run(&a, &b, 5));
    CHECKF(b.messages == 60 && fake.sends == sends + 1, "%d sends", fake.sends - sends);
    /* Each window is told of by itself; those that are heard of together are filled by one post. */
    const int posts = fake.posts, signalled = fake.signalled;
    for (int i = 0; i < 32; i++)
        CHECK_OK(end_window(&b, 4096, END_ARENA));
    CHECK_OK(ends_run(&a, &b, 5));
    CHECKF(a.done == 32 && fake.posts - posts <= 32 + 4, "%d posts", fake.posts - posts);
    CHECKF(fake.signalled - signalled <= 5, "%d signalled", fake.signalled - signalled);
    CHECK(a.wrong + b.wrong == 0);
    close_ends();
}

/* ---- choosing GIDs by proof ------------------------------------------------------------------ */

static void two_addresses(void)
{
    fake_reset();
    fake_device *l = fake_add("left0"), *r = fake_add("right0");
    fake_gid(l, "10.0.0.1", 3, FAKE_V2);
    fake_gid(l, "192.168.9.1", 5, FAKE_V2);
    fake_gid(r, "10.0.0.2", 2, FAKE_V2);
    fake_gid(r, "192.168.9.2", 1, FAKE_V2);
    net_verbs_api_replace(&fake_verbs);
}

static void the_next_gids_are_tried_when_the_probe_is_lost(void)
{
    char text[400];
    net_config c = end_config();
    for (int how = 0; how < 3; how++) {
        two_addresses();
        /* 0: one direction loses packets; 1: no route; 2: the entry is dead to begin with. */
        fake.lost_to = how == 0 ? "10.0.0.2" : NULL;
        fake.refuse_rtr_to = how == 1 ? "10.0.0.1" : NULL;
        fake.device[0].gid[0].dead = how == 2;
        CHECK_OK(open_ends(&c, "left", "right"));
        a.ops->describe(a.link, text, sizeof text);
        CHECKF(strstr(text, "192.168.9.1 <-> 192.168.9.2"), "%s", text);
        CHECK_OK(messages(20));
        close_ends();
    }
}

static void a_rail_that_carries_nothing_is_dropped(void)
{
    net_config c = end_config();
    for (int which = 1; which <= 2; which++) {
        four_devices(32);
        fake.lost_to = which == 1 ? "10.1.0.2" : "10.2.0.1";
        CHECK_OK(open_ends(&c, "left", "right"));
        CHECK(((net_verbs_link *)a.link)->rails == 1 && ((net_verbs_link *)b.link)->rails == 1);
        traffic();
        close_ends();
    }
}

static void a_pair_that_cannot_reach_each_other_is_told_why(void)
{
    net_config c = end_config();
    two_addresses();
    fake.device[0].gids = fake.device[1].gids = 1;
    fake.lost_to = "10.0.0.1";
    CHECK_FAILS(open_ends(&c, "left", "right"), GT_UNSUPPORTED, "10.0.0.1");
    CHECK(strstr(gt_message(), "10.0.0.2 (GID 2)") && strstr(gt_message(), "4791"));
    close_ends();
    two_addresses();
    fake.device[1].gids = 0;
    fake_gid(&fake.device[1], "10.0.0.2", 2, FAKE_V1);
    CHECK_FAILS(open_ends(&c, "left", "right"), GT_UNSUPPORTED, "RoCE version");
    close_ends();
}

static void infiniband_goes_by_lid(void)
{
    net_config c = end_config();
    fake_reset();
    for (int i = 0; i < 2; i++) {
        fake_device *d = fake_add(i ? "right0" : "left0");
        d->ethernet = 0;
        d->lid = 7 + i;
        fake_gid(d, i ? "fe80::2" : "fe80::1", 0, 0);
    }
    net_verbs_api_replace(&fake_verbs);
    CHECK_OK(open_ends(&c, "left", "right"));
    traffic();
    char text[400];
    a.ops->describe(a.link, text, sizeof text);
    CHECKF(strstr(text, "InfiniBand"), "%s", text);
    close_ends();
}

/* ---- what is missing ------------------------------------------------------------------------- */

static void refused(const net_config *c, const char *because)
{
    CHECK_FAILS(end_open(&a, 0, c), GT_UNSUPPORTED, because);
    end_close(&a);
    CHECKF(fake.alive == 0, "%d objects are left", fake.alive);
}

static void what_is_missing_is_said(void)
{
    net_config c = end_config();
    fake_reset();
    net_verbs_api_replace(&fake_verbs);
    refused(&c, "no RDMA device");
    one_device();
    fake.device[0].active = 0;
    refused(&c, "nic0:1 is not active");
    one_device();
    fake.device[0].refuse_open = 1;
    refused(&c, "/dev/infiniband");
    one_device();
    fake.device[0].iwarp = 1;
    refused(&c, "iWARP");
    one_device();
    fake.device[0].gid[0].dead = 1;
    refused(&c, "no usable GID");
    one_device();
    fake_gid(&fake.device[0], "10.7.0.1", 9, FAKE_V2);
    c.gid_index = 4;
    refused(&c, "no usable GID 4");
    c.gid_index = 9;
    CHECK_OK(end_open(&a, 0, &c));
    CHECK(((net_verbs_transport *)a.t)->port[0].offer.gids == 1);
    end_close(&a);
    c.gid_index = -1;
    c.hca = "mlx5";
    refused(&c, "there are: nic0");
    c.hca = "a,,b";
    CHECK_FAILS(end_open(&a, 0, &c), GT_MISUSE, "hca 'a,,b'");
    end_close(&a);
    c.hca = "";
    c.verbs = 0;
    refused(&c, "setting `verbs` is 0");
}

static void a_survey_shows_the_choice_and_what_is_left_out(void)
{
    net_config c = end_config();
    net_verbs_survey *s;
    four_devices(32);
    fake_gid(&fake.device[0], "fe80::1", 0, FAKE_V1);
    fake_gid(&fake.device[0], "10.8.0.1", 9, FAKE_V2);
    fake.device[0].gid[2].dead = 1;
    fake.device[1].active = 0;
    fake.device[2].refuse_open = 1;
    c.hca = "^right1";
    CHECK_OK(net_verbs_survey_take(&s, &c));
    CHECK(s->ports == 4 && !s->trouble[0] && s->need > 1 << 20);
    const net_verbs_survey_port *p = &s->port[0];
    CHECK(p->active && p->mtu == 4096 && p->speed == 100000 && p->numa == -1 && p->gids == 3);
    CHECK(p->gid[0].chosen && p->gid[0].operational && !strcmp(p->gid[0].address, "10.1.0.1")
          && !strcmp(p->gid[0].kind, "IPv4, RoCE v2"));
    CHECK(p->gid[1].operational && !p->gid[1].chosen && !p->gid[2].operational);
    CHECK(strstr(s->port[1].trouble, "not active") && strstr(s->port[2].trouble, "does not open"));
    CHECK(!s->port[3].wanted && s->port[0].wanted);
    free(s);
    fake_reset();
    CHECK_OK(net_verbs_survey_take(&s, &c));
    CHECK(strstr(s->trouble, "no device") && s->ports == 0);
    free(s);
    CHECK(fake.alive == 0);
}

static void memory_that_cannot_be_registered_is_said_and_undone(void)
{
    net_config c = end_config();
    one_device();
    CHECK_OK(open_ends(&c, "", ""));
    const int before = fake.alive;
    fake.refuse_mr = 1;
    net_memory *m = NULL;
    CHECK_FAILS(net_memory_make(a.memory, 1 << 20, &m), GT_NO_MEMORY, "");
    CHECK_FAILS(end_window(&a, 100000, END_PLAIN), GT_NO_MEMORY, "register");
    CHECK(fake.alive == before);
    a.opened--;
    end_forget(&a);
    fake.refuse_mr = 0;
    CHECK_OK(windows((const size_t[]){ 100000, 3000000 }, 2, 1));
    close_ends();
    if (net_verbs_memlock_limit() == UINT64_MAX)
        CHECK_OK(net_verbs_memlock_check(UINT64_MAX));
    else
        CHECK_FAILS(net_verbs_memlock_check(UINT64_MAX), GT_UNSUPPORTED, "memlock");
}

/* ---- failures -------------------------------------------------------------------------------- */

static void the_first_error_is_one_sentence(void)
{
    static const struct {
        enum ibv_wc_status status;
        const char *hint;
    } rows[] = { { IBV_WC_RETRY_EXC_ERR, "without an answer" },
                 { IBV_WC_RNR_RETRY_EXC_ERR, "credits" },
                 { IBV_WC_LOC_PROT_ERR, "IOMMU" },
                 { IBV_WC_REM_ACCESS_ERR, "refused the address" },
                 { IBV_WC_REM_INV_REQ_ERR, "malformed" },
                 { IBV_WC_FATAL_ERR, "firmware" },
                 { IBV_WC_GENERAL_ERR, "transport=tcp" } };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        net_config c = end_config();
        one_device();
        CHECK_OK(open_ends(&c, "", ""));
        fake.fail_only_size = 65536;
        fake.fail_after = 2;
        fake.fail_status = rows[i].status;
        gt_status st = GT_OK;
        for (int k = 0; !st && k < 8; k++)
            st = end_window(&b, 65536, END_ARENA);
        CHECK_FAILS(ends_run(&a, &b, 2), GT_PEER, rows[i].hint);
        const char *why = a.failed ? a.why : b.why;
        CHECKF(strstr(why, "cannot write 65536 bytes from rank 0 (host0, pid") && strstr(why, "to rank 1")
                   && strstr(why, "vendor error 129") && strstr(why, "nic0:1 (GID 3, 10.0.0.1, QP 10")
                   && !strstr(why, "Flushed"),
               "%s", why);
        /* Told once, and refused from then on with the same words. */
        a.failed = GT_OK;
        int did = 0;
        a.ops->progress(a.t, &did);
        CHECK(!a.failed && a.ops->arm(a.t) == 0);
        CHECK_FAILS(end_say(&a, 3), GT_PEER, rows[i].hint);
        close_ends();
    }
}

static void a_failed_device_ends_its_links_and_a_port_is_only_reported(void)
{
    net_config c = end_config();
    int did = 0;
    one_device();
    CHECK_OK(open_ends(&c, "", ""));
    fake_async("nic0", IBV_EVENT_PORT_ERR, NULL);
    check_allow_warnings();
    const unsigned before = gt_log_warnings();
    a.ops->disarm(a.t);
    a.ops->progress(a.t, &did);
    CHECK(gt_log_warnings() == before + 1 && !a.failed);
    fake_async("nic0", IBV_EVENT_QP_ACCESS_ERR, ((net_verbs_link *)b.link)->lane[1].qp);
    a.ops->disarm(a.t);
    b.ops->disarm(b.t);
    a.ops->progress(a.t, &did);
    b.ops->progress(b.t, &did);
    CHECK(!a.failed && b.failed == GT_PEER && strstr(b.why, "rank 0"));
    fake_async("nic0", IBV_EVENT_DEVICE_FATAL, NULL);
    CHECK(a.ops->arm(a.t) == 0);
    a.ops->disarm(a.t);
    CHECK(a.ops->arm(a.t) == 1);
    a.ops->progress(a.t, &did);
    CHECKF(a.failed == GT_PEER && strstr(a.why, "device fatal"), "%s", a.why);
    close_ends();
}

static void nothing_a_peer_signals_is_believed(void)
{
    static const net_verbs_signal bad[] = {
        { 4095, 1, 1 },         /* no such slot       */
        { 1, 1, 1 },            /* not open           */
        { 0, 2, 1 },            /* of an older window */
        { 0, 1, 0 },    { 0, 1, 40 },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        net_config c = end_config();
        int did = 0;
        one_device();
        CHECK_OK(open_ends(&c, "", ""));
        CHECK_OK(end_window(&a, 1000, END_ARENA));
        net_verbs_link *link = (net_verbs_link *)a.link;
        CHECK(link->slots[0].open && link->slots[0].sequence == 1);
        net_verbs_signal_arrived(link, 1, net_verbs_signal_pack(bad[i]), &did);
        a.ops->progress(a.t, &did);
        CHECKF(a.failed == GT_PEER && strstr(a.why, "not open"), "case %zu: %s", i, a.why);
        close_ends();
    }
    /* The same lane twice, where two were announced. */
    net_config c = end_config();
    int did = 0;
    one_device();
    c.queue_pairs = 2;
    CHECK_OK(open_ends(&c, "", ""));
    CHECK_OK(end_window(&a, 1000, END_ARENA));
    net_verbs_link *link = (net_verbs_link *)a.link;
    const uint32_t word = net_verbs_signal_pack((net_verbs_signal){ 0, 1, 2 });
    net_verbs_signal_arrived(link, 1, word, &did);
    CHECK(!link->failed);
    net_verbs_signal_arrived(link, 1, word, &did);
    CHECK(link->failed);
    close_ends();
}

static void nothing_a_peer_offers_is_believed(void)
{
    net_config c = end_config();
    unsigned char offer[NET_OFFER], answer[NET_OFFER];
    size_t size, n;
    int again, stream = -1;
    one_device();
    CHECK_OK(end_open(&a, 0, &c));
    CHECK_OK(a.ops->offer(a.t, 1, 1, &a, &a.link, offer, &size));
    memset(offer, 0xff, sizeof offer);
    CHECK_FAILS(a.ops->connect(a.link, offer, size, answer, &n, &again, &stream), GT_FORMAT, "offer");
    end_close(&a);
    CHECK_OK(open_ends(&c, "", ""));
    /* Windows that are no such thing, or of another size. */
    unsigned char d[NET_DESCRIPTOR] = { 0 };
    CHECK(a.ops->put(a.link, d, 10, 0, d, sizeof d, NULL) == GT_FORMAT);
    CHECK(a.ops->put(a.link, d, 10, 0, d, 0, NULL) == GT_FORMAT);
    net_verbs_window w = { 0, 1, 1, 4096, 11, { 1 } };
    n = net_verbs_window_write(&w, d);
    CHECK_FAILS(a.ops->put(a.link, d, 10, 0, d, n, NULL), GT_FORMAT, "open for 11");
    close_ends();
    /* Another setting of eager cannot work. */
    net_config other = c;
    other.eager = 4096;
    one_device();
    CHECK_OK(end_open(&a, 0, &c));
    CHECK_OK(end_open(&b, 1, &other));
    CHECK_FAILS(ends_link(&a, &b), GT_MISMATCH, "eager");
    close_ends();
}

static void a_link_may_be_left_at_any_step(void)
{
    net_config c = end_config();
    for (int rounds = 0; rounds < 5; rounds++) {
        end *const ends[2] = { &a, &b };
        unsigned char offer[2][NET_OFFER], next[2][NET_OFFER];
        size_t size[2], next_size[2];
        one_device();
        for (int i = 0; i < 2; i++) {
            CHECK_OK(end_open(ends[i], i, &c));
            CHECK_OK(ends[i]->ops->offer(ends[i]->t, !i, !i, ends[i], &ends[i]->link, offer[i], &size[i]));
        }
        for (int r = 0; r < rounds; r++) {
            for (int i = 0; i < 2; i++) {
                int again, stream = -1;
                if (r < 4)
                    CHECK_OK(ends[i]->ops->connect(ends[i]->link, offer[!i], size[!i], next[i], &next_size[i], &again,
                                                   &stream));
            }
            memcpy(offer, next, sizeof offer);
            memcpy(size, next_size, sizeof size);
        }
        close_ends();
    }
    /* With work outstanding, in both directions. */
    one_device();
    CHECK_OK(open_ends(&c, "", ""));
    for (int i = 0; i < 20; i++) {
        CHECK_OK(end_window(&a, 100000, END_PLAIN));
        CHECK_OK(end_say(&b, 100));
    }
    int did = 0;
    b.ops->progress(b.t, &did);
    close_ends();
}

const check_case check_cases[] = {
    CASE(names_of_devices_are_matched_as_users_of_nccl_know_it),
    CASE(the_best_gid_is_global_then_v2_then_ipv4),
    CASE(two_gids_must_speak_the_same_roce_and_family),
    CASE(ports_are_paired_by_subnet_whatever_their_order),
    CASE(a_rail_below_a_quarter_of_the_best_is_dropped_on_both_ends),
    CASE(infiniband_takes_a_grh_only_between_subnets_or_when_asked),
    CASE(several_gids_are_tried_best_first),
    CASE(shares_add_up_and_follow_the_speeds),
    CASE(offers_survive_the_wire_and_nothing_less_does),
    CASE(a_message_is_as_long_as_its_head_says),
    CASE(bytes_arrive_under_every_setting),
    CASE(a_device_with_short_queues_is_never_overrun),
    CASE(rails_share_by_speed_and_may_reorder),
    CASE(completions_are_asked_for_rarely),
    CASE(many_small_transfers_take_few_posts_and_completions),
    CASE(the_next_gids_are_tried_when_the_probe_is_lost),
    CASE(a_rail_that_carries_nothing_is_dropped),
    CASE(a_pair_that_cannot_reach_each_other_is_told_why),
    CASE(infiniband_goes_by_lid),
    CASE(what_is_missing_is_said),
    CASE(a_survey_shows_the_choice_and_what_is_left_out),
    CASE(memory_that_cannot_be_registered_is_said_and_undone),
    CASE(the_first_error_is_one_sentence),
    CASE(a_failed_device_ends_its_links_and_a_port_is_only_reported),
    CASE(nothing_a_peer_signals_is_believed),
    CASE(nothing_a_peer_offers_is_believed),
    CASE(a_link_may_be_left_at_any_step),
    { 0 }
};
