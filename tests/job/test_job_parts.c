/* SPDX-License-Identifier: MIT */
/* tests/job/test_job_parts.c - the pieces of net/job that need no other rank: proofs, hellos,
 * control messages, settings, host lists, identities, the secret file, who is stuck. */
#include "host/base/file.h"
#include "host/base/log.h"
#include "net/job/address.h"
#include "net/job/control.h"
#include "net/job/hello.h"
#include "net/job/hostlist.h"
#include "net/job/identity.h"
#include "net/job/stall.h"
#include "tests/check.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- proofs -------------------------------------------------------------------------------- */

/* RFC 4231, cases 1, 2 and 6: the function that all proofs stand on. */
static void hmac_is_that_of_rfc_4231(void)
{
    static const struct {
        const char *key;
        size_t repeat;
        const char *data, *mac;
    } cases[] = { { "0b", 20, "4869205468657265", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7" },
                  { "4a656665", 1, "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
                    "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843" },
                  { "aa", 131,
                    "54657374205573696e67204c6172676572205468616e20426c6f636b2d53697a65204b6579202d"
                    "2048617368204b6579204669727374",
                    "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54" } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        unsigned char key[256], data[256], mac[NET_MAC], want[NET_MAC];
        size_t unit, key_size = 0, data_size, n;
        sodium_hex2bin(key, sizeof key, cases[i].key, strlen(cases[i].key), NULL, &unit, NULL);
        for (size_t k = 0; k < cases[i].repeat; k++, key_size += unit)
            memmove(key + key_size, key, unit);
        sodium_hex2bin(data, sizeof data, cases[i].data, strlen(cases[i].data), NULL, &data_size, NULL);
        sodium_hex2bin(want, sizeof want, cases[i].mac, strlen(cases[i].mac), NULL, &n, NULL);
        crypto_auth_hmacsha256_state s;
        crypto_auth_hmacsha256_init(&s, key, key_size);
        crypto_auth_hmacsha256_update(&s, data, data_size);
        crypto_auth_hmacsha256_final(&s, mac);
        CHECK(memcmp(mac, want, sizeof mac) == 0);
    }
}

/* label, zero byte, parts: as HMAC over their concatenation gives it. */
static void mac_is_over_label_and_all_parts(void)
{
    static const unsigned char key[NET_SECRET] = { 1, 2, 3 };
    const net_span parts[] = { { "abc", 3 }, { NULL, 0 }, { "de", 2 } };
    unsigned char mac[NET_MAC], want[NET_MAC];
    net_secret_mac(mac, key, "label", parts, 3);
    crypto_auth_hmacsha256(want, (const unsigned char *)"label\0abcde", 11, key);
    CHECK(memcmp(mac, want, sizeof mac) == 0);
    CHECK(net_secret_equal(mac, want));
    want[NET_MAC - 1] ^= 1;
    CHECK(!net_secret_equal(mac, want));
}

static net_hello some_hello(void)
{
    net_hello h;
    net_hello_init(&h, NET_ROLE_CONTROL, 3, 8, 0, UINT64_C(0x1122334455667788));
    memset(h.nonce, 9, sizeof h.nonce);
    return h;
}

/* Whatever byte of either hello changes, no proof and no session key stays the same. */
static void proofs_depend_on_every_byte(void)
{
    unsigned char a[NET_HELLO], b[NET_HELLO], key[NET_SECRET] = { 5 };
    unsigned char proof[4][NET_MAC], other[4][NET_MAC];
    net_hello h = some_hello();
    net_hello_format(a, &h);
    h.rank = 0;
    h.peer = 3;
    h.nonce[0] = 1;
    net_hello_format(b, &h);
    for (int i = 0; i < 2 * NET_HELLO + 1; i++) {
        unsigned char(*out)[NET_MAC] = i == 2 * NET_HELLO ? proof : other;
        unsigned char *byte = i < NET_HELLO ? &a[i] : &b[(i - NET_HELLO) % NET_HELLO];
        if (i < 2 * NET_HELLO)
            *byte ^= 0x40;
        net_hello_proof(out[0], key, 0, a, b);
        net_hello_proof(out[1], key, 1, a, b);
        net_hello_session(out[2], key, 0, a, b);
        net_hello_session(out[3], key, 1, a, b);
        if (i < 2 * NET_HELLO) {
            *byte ^= 0x40;
            net_hello_proof(proof[0], key, 0, a, b);
            net_hello_proof(proof[1], key, 1, a, b);
            net_hello_session(proof[2], key, 0, a, b);
            net_hello_session(proof[3], key, 1, a, b);
            for (int k = 0; k < 4; k++)
                CHECK(memcmp(proof[k], other[k], NET_MAC) != 0);
        }
    }
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < i; k++)
            CHECK(memcmp(proof[i], proof[k], NET_MAC) != 0);
}

static void hellos_survive_the_wire(void)
{
    unsigned char bytes[NET_HELLO], again[NET_HELLO];
    net_hello h = some_hello(), back;
    net_hello_format(bytes, &h);
    CHECK_OK(net_hello_parse(&back, bytes));
    CHECK(back.rank == 3 && back.size == 8 && back.peer == 0 && back.config == h.config);
    CHECK(back.protocol == NET_PROTOCOL && back.order == net_hello_order());
    CHECK(!strcmp(back.version, h.version));
    net_hello_format(again, &back);
    CHECK(memcmp(bytes, again, sizeof bytes) == 0);
}

static void hellos_that_nobody_says_are_refused(void)
{
    static const struct {
        int at;
        unsigned char value;
        const char *part;
    } cases[] = { { 0, 'H', "protocol" }, { 10, 0, "role" }, { 10, 4, "role" },    { 11, 'x', "byte order" },
                  { 12, 0x80, "rank" },   { 15, 8, "rank" }, { 16, 1, "rank" },    { 19, 0, "rank" },
                  { 20, 1, "rank" },      { 23, 3, "rank" }, { 32, 0, "version" }, { 33, 7, "version" },
                  { 63, 'x', "version" } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        unsigned char bytes[NET_HELLO];
        net_hello h = some_hello(), back;
        net_hello_format(bytes, &h);
        bytes[cases[i].at] = cases[i].value;
        CHECK_FAILS(net_hello_parse(&back, bytes), GT_FORMAT, cases[i].part);
    }
}

static void what_keeps_ranks_apart_is_named(void)
{
    const net_hello ours = some_hello();
    net_hello theirs = ours;
    CHECK_OK(net_hello_compare(&ours, "rank 0", &theirs, "rank 3"));
    snprintf(theirs.version, sizeof theirs.version, "9.9.9");
    CHECK_FAILS(net_hello_compare(&ours, "rank 0", &theirs, "rank 3"), GT_MISMATCH,
                "rank 3 runs geartrain 9.9.9 (protocol 1) and rank 0 runs");
    theirs = ours;
    theirs.protocol = 2;
    CHECK_FAILS(net_hello_compare(&ours, "rank 0", &theirs, "rank 3"), GT_MISMATCH, "(protocol 2)");
    theirs = ours;
    theirs.order = theirs.order == 'l' ? 'b' : 'l';
    CHECK_FAILS(net_hello_compare(&ours, "rank 0", &theirs, "rank 3"), GT_MISMATCH, "endian");
    theirs = ours;
    theirs.size = 9;
    CHECK_FAILS(net_hello_compare(&ours, "rank 0", &theirs, "rank 3"), GT_MISMATCH,
                "one of 9 ranks and rank 0 as one of 8");
}

/* ---- control messages ---------------------------------------------------------------------- */

static void control_messages_survive_the_wire(void)
{
    unsigned char bytes[2048];
    const unsigned char *at[3];
    size_t length[3];
    net_head head = { NET_CONTRIBUTION, 77, 12345678901 }, head_back;
    net_notice n = { GT_PEER, 2, "lost rank 2" }, n_back;
    net_member m = { .rank = 1,
                     .local_rank = 0,
                     .local_size = 2,
                     .host = "nodeB",
                     .host_id = 99,
                     .address = "10.0.0.2",
                     .port = 4711,
                     .pid = 12,
                     .version = "0.1.0" },
               m_back;
    net_beat b = { .activity = { .started = 5, .finished = 4, .waits_for = -1, .text = "x" }, .age = 7 }, b_back;
    uint64_t sequence;
    char what[NET_WHAT];
    net_head_format(bytes, &head);
    CHECK_OK(net_head_parse(&head_back, bytes, 3));
    CHECK(head_back.type == NET_CONTRIBUTION && head_back.length == 77 && head_back.counter == head.counter);
    CHECK_OK(net_notice_parse(&n_back, bytes, net_notice_format(bytes, &n), 3));
    CHECK(n_back.code == GT_PEER && n_back.culprit == 2 && !strcmp(n_back.sentence, n.sentence));
    CHECK_FAILS(net_notice_parse(&n_back, bytes, net_notice_format(bytes, &n), 2), GT_FORMAT, "");
    net_member_format(bytes, &m);
    CHECK_OK(net_member_parse(&m_back, bytes, 2));
    CHECK(m_back.rank == 1 && m_back.local_size == 2 && m_back.host_id == 99 && m_back.port == 4711 && m_back.pid == 12
          && !strcmp(m_back.host, "nodeB") && !strcmp(m_back.address, "10.0.0.2") && !strcmp(m_back.version, "0.1.0"));
    CHECK_FAILS(net_member_parse(&m_back, bytes, 1), GT_FORMAT, "");
    net_beat_format(bytes, &b);
    CHECK_OK(net_beat_parse(&b_back, bytes, NET_BEAT_BYTES, 2));
    CHECK(b_back.activity.started == 5 && b_back.activity.finished == 4 && b_back.age == 7
          && b_back.activity.waits_for == -1 && !strcmp(b_back.activity.text, "x"));
    net_contribution_format(bytes, 8, "offers");
    CHECK_OK(net_contribution_parse(&sequence, what, bytes, NET_CONTRIBUTION_HEAD));
    CHECK(sequence == 8 && !strcmp(what, "offers"));
    memcpy(bytes + NET_CONTRIBUTION_HEAD, "\0\0\0\2ab\0\0\0\0\0\0\0\1c", 15);
    CHECK_OK(net_all_parse(at, length, bytes, NET_CONTRIBUTION_HEAD + 15, 3));
    CHECK(length[0] == 2 && length[1] == 0 && length[2] == 1 && at[2][0] == 'c');
    for (size_t cut = 0; cut < 15; cut++)
        CHECK_FAILS(net_all_parse(at, length, bytes, NET_CONTRIBUTION_HEAD + cut, 3), GT_FORMAT, "");
    CHECK_FAILS(net_all_parse(at, length, bytes, NET_CONTRIBUTION_HEAD + 16, 3), GT_FORMAT, "behind");
}

static void lengths_are_bounded_by_kind(void)
{
    unsigned char bytes[NET_HEAD];
    net_head back;
    for (int type = 0; type < 256; type++) {
        const int known = type >= NET_VERDICT && type < NET_TYPES;
        const uint64_t limit = known ? net_body_limit((net_type)type, 4) : 0;
        net_head h = { (net_type)type, (uint32_t)limit, 0 };
        net_head_format(bytes, &h);
        CHECK((net_head_parse(&back, bytes, 4) == GT_OK) == known);
        h.length++;
        net_head_format(bytes, &h);
        CHECK_FAILS(net_head_parse(&back, bytes, 4), GT_FORMAT, "");
    }
}

/* ---- settings ------------------------------------------------------------------------------ */

static void clear_settings(void)
{
    /* clang-format off */
    static const char *const names[] = { "GEARTRAIN_NET_EAGER", "GEARTRAIN_NET_CONFIG", "NCCL_IB_HCA",
        "UCX_NET_DEVICES", "NCCL_IB_DISABLE", "NCCL_ALGO", "NCCL_IB_PCI_RELAXED_ORDERING",
        "GEARTRAIN_NET_GID_INDEX", "NCCL_IB_GID_INDEX", "GEARTRAIN_NET_EAGRE", "NCCL_COMM_ID",
        "NCCL_IB_TIMEOUT", "GEARTRAIN_NET_SPIN", "NCCL_SOCKET_IFNAME", "GEARTRAIN_NET_SHM_RING" };
    /* clang-format on */
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unsetenv(names[i]);
}

static void defaults_are_complete(void)
{
    net_config *c;
    clear_settings();
    CHECK_OK(net_config_read(&c));
    CHECK(c->start_timeout == UINT64_C(60000000000) && c->heartbeat == UINT64_C(1000000000));
    CHECK(c->eager == 8192 && c->chunk == 1048576 && c->spin == UINT64_MAX && c->gid_index == -1);
    CHECK(!strcmp(c->transport, "auto") && !strcmp(c->shm_mode, "auto") && c->shm_ring == 1048576);
    CHECK(c->ib_timeout == 17 && c->ib_retry == -1 && c->immediate == 1 && c->verbs == 1);
    CHECK(c->pipeline == 524288 && !strcmp(c->algorithm, "auto") && c->interface[0] == '\0');
    net_config_release(c);
}

/* Whether the table of --print-config says that `name` has `value` from `origin`. */
static int printed(const net_config *c, const char *name, const char *value, const char *origin)
{
    char a[64], b[64], o[64];
    gt_text t = { 0 };
    int found = 0;
    net_config_print(c, &t);
    for (const char *line = t.data; line && *line && !found; line = strchr(line, '\n') + 1)
        found = sscanf(line, "%63s %63s %63s", a, b, o) == 3 && !strcmp(a, name) && !strcmp(b, value)
                && !strcmp(o, origin);
    gt_text_release(&t);
    return found;
}

static void the_strongest_origin_wins(void)
{
    net_config *c;
    char path[256];
    clear_settings();
    snprintf(path, sizeof path, "%s/net.conf", check_folder());
    CHECK_OK(gt_file_write(path, "# a file\n\ngid-index = 1\r\n  eager=4KiB\nhca = mlx5_9 \n", 53));
    setenv("GEARTRAIN_NET_CONFIG", path, 1);
    CHECK_OK(net_config_read(&c));
    CHECK(c->gid_index == 1 && c->eager == 4096 && !strcmp(c->hca, "mlx5_9"));
    net_config_release(c);
    setenv("NCCL_IB_GID_INDEX", "2", 1);
    CHECK_OK(net_config_read(&c));
    CHECK(c->gid_index == 2 && printed(c, "gid-index", "2", "NCCL_IB_GID_INDEX"));
    net_config_release(c);
    setenv("GEARTRAIN_NET_GID_INDEX", "3", 1);
    CHECK_OK(net_config_read(&c));
    CHECK(c->gid_index == 3 && printed(c, "gid-index", "3", "GEARTRAIN_NET_GID_INDEX"));
    CHECK(printed(c, "chunk", "1MiB", "default"));
    CHECK_OK(net_config_set(c, "gid-index", "4"));
    CHECK_OK(net_config_set(c, "gid_index", "5"));
    CHECK(c->gid_index == 5 && printed(c, "gid-index", "5", "--net"));
    net_config_release(c);
    clear_settings();
}

static void other_libraries_names_are_understood(void)
{
    net_config *c;
    clear_settings();
    setenv("NCCL_IB_DISABLE", "1", 1);
    setenv("NCCL_ALGO", "Ring;AllReduce:Tree", 1);
    setenv("NCCL_IB_PCI_RELAXED_ORDERING", "2", 1);
    setenv("UCX_NET_DEVICES", "eth0,mlx5_0:1,mlx5_1:1", 1);
    setenv("NCCL_COMM_ID", "10.0.0.1:5000", 1);
    setenv("NCCL_SOCKET_IFNAME", "^lo,docker", 1);
    CHECK_OK(net_config_read(&c));
    CHECK(c->verbs == 0 && !strcmp(c->algorithm, "ring;allreduce:tree") && c->relaxed_ordering == 1);
    CHECK(!strcmp(c->hca, "mlx5_0:1,mlx5_1:1") && !strcmp(c->rendezvous, "10.0.0.1:5000"));
    CHECK(!strcmp(c->interface, "^lo,docker"));
    net_config_release(c);
    setenv("NCCL_IB_HCA", "=mlx5_7", 1);
    CHECK_OK(net_config_read(&c));
    CHECK(!strcmp(c->hca, "=mlx5_7"));
    net_config_release(c);
    clear_settings();
}

/* A site's settings for NCCL end no job of ours. */
static void what_other_libraries_know_better_is_passed_over(void)
{
    static const struct {
        const char *name, *value, *knob, *want;
        unsigned warnings;
    } cases[] = {
        { "NCCL_IB_QPS_PER_CONNECTION", "32", "queue-pairs", "16", 1 },
        { "NCCL_IB_QPS_PER_CONNECTION", "8", "queue-pairs", "8", 0 },
        { "NCCL_IB_QPS_PER_CONNECTION", "0", "queue-pairs", "1", 1 },
        { "NCCL_IB_TIMEOUT", "99", "ib-timeout", "31", 1 },
        { "NCCL_IB_TC", "0x6a", "traffic-class", "106", 0 },
        { "NCCL_IB_GID_INDEX", "auto", "gid-index", "-1", 1 },
        { "NCCL_IB_GID_INDEX", "-1", "gid-index", "-1", 0 },
        { "NCCL_IB_AR_THRESHOLD", "16384", "adaptive-routing", "16KiB", 0 },
        { "NCCL_IB_AR_THRESHOLD", "9223372036854775807", "adaptive-routing", "1GiB", 1 },
        { "NCCL_IB_AR_THRESHOLD", "-1", "adaptive-routing", "8KiB", 1 },
        { "NCCL_IB_HCA", "^mlx5_3", "hca", "^mlx5_3", 0 },
        { "NCCL_IB_HCA", "=mlx5_0:1,mlx5_1", "hca", "=mlx5_0:1,mlx5_1", 0 },
        { "NCCL_IB_HCA", "mlx5_0,", "hca", "mlx5_0", 0 },
        { "NCCL_IB_HCA", "mlx5_0:1:2,mlx5_1", "hca", "mlx5_1", 1 },
        { "NCCL_IB_HCA", "^=mlx5_0", "hca", "^=mlx5_0", 0 },
        { "NCCL_IB_HCA", "=", "hca", "-", 0 },
        { "NCCL_SOCKET_IFNAME", "nosuch0", "interface", "-", 1 },
        { "NCCL_SOCKET_IFNAME", "=lo", "interface", "=lo", 0 },
        { "NCCL_ALGO", "^NVLS", "algorithm", "^nvls", 0 }
    };
    check_allow_warnings();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        net_config *c;
        clear_settings();
        unsetenv("GEARTRAIN_RANK");
        setenv(cases[i].name, cases[i].value, 1);
        const unsigned before = (unsigned)gt_log_warnings();
        if (CHECK_OK(net_config_read(&c))) {
            CHECKF(printed(c, cases[i].knob, cases[i].want, cases[i].name)
                       || printed(c, cases[i].knob, cases[i].want, "default"),
                   "%s=%s", cases[i].name, cases[i].value);
            CHECKF((unsigned)gt_log_warnings() - before == cases[i].warnings, "%s=%s", cases[i].name, cases[i].value);
            net_config_release(c);
        }
        unsetenv(cases[i].name);
    }
    clear_settings();
}

static void wrong_settings_are_refused_by_name(void)
{
    net_config *c;
    clear_settings();
    setenv("GEARTRAIN_NET_EAGRE", "1", 1);
    CHECK_FAILS(net_config_read(&c), GT_MISUSE, "did you mean eager");
    clear_settings();
    CHECK_OK(net_config_read(&c));
    CHECK_FAILS(net_config_set(c, "shm-ring", "3MiB"), GT_MISUSE, "power of two");
    CHECK_FAILS(net_config_set(c, "shm-mode", "fast"), GT_MISUSE, "auto|map|cma|copy");
    CHECK_FAILS(net_config_set(c, "chunk", "-1"), GT_MISUSE, "chunk");
    CHECK_FAILS(net_config_set(c, "gid-index", "-2"), GT_MISUSE, "-1 to 255");
    CHECK_FAILS(net_config_set(c, "no-such", "1"), GT_MISUSE, "no-such");
    CHECK_OK(net_config_set(c, "heartbeat", "9s"));
    CHECK_FAILS(net_config_check(c), GT_MISUSE, "at least twice heartbeat");
    net_config_release(c);
}

static void only_what_must_agree_is_hashed(void)
{
    static const struct {
        const char *name, *value;
        int differs;
    } cases[] = { { "eager", "1KiB", 1 },   { "chunk", "2MiB", 1 },     { "pipeline", "1MiB", 1 },
                  { "immediate", "0", 1 },  { "algorithm", "ring", 1 }, { "interface", "eth0", 0 },
                  { "heartbeat", "2s", 0 }, { "hca", "mlx5_0", 0 },     { "gid-index", "3", 0 } };
    net_config *a, *b;
    CHECK_OK(net_config_read(&a));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CHECK_OK(net_config_read(&b));
        CHECK(net_config_hash(a) == net_config_hash(b));
        CHECK_OK(net_config_set(b, cases[i].name, cases[i].value));
        CHECKF((net_config_hash(a) != net_config_hash(b)) == cases[i].differs, "%s", cases[i].name);
        net_config_release(b);
    }
    net_config_release(a);
}

/* ---- addresses ----------------------------------------------------------------------------- */

static void interface_patterns_fit_names(void)
{
    static const struct {
        const char *pattern, *name;
        int fits;
    } cases[] = { { "", "eth0", 1 },           { "eth", "eth0", 1 },      { "eth0", "eth01", 1 },
                  { "=eth0", "eth01", 0 },     { "=eth0", "eth0", 1 },    { "ib,eth", "eth1", 1 },
                  { "ib,eth", "lo", 0 },       { "^lo,docker", "lo", 0 }, { "^lo,docker", "docker0", 0 },
                  { "^lo,docker", "eth0", 1 }, { "^=lo", "lo0", 1 },      { "^=lo", "lo", 0 } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        CHECKF(net_interface_fits(cases[i].pattern, cases[i].name) == cases[i].fits, "%s %s", cases[i].pattern,
               cases[i].name);
}

static void an_unknown_interface_lists_those_there_are(void)
{
    net_address a;
    CHECK_FAILS(net_interface_choose(&a, "nosuch0", NULL), GT_MISUSE, "lo");
    CHECK_OK(net_interface_choose(&a, "=lo", NULL));
    CHECK(net_address_is_loopback(&a));
}

static void port_ranges_are_read(void)
{
    uint16_t a, b;
    CHECK_OK(net_ports_parse(&a, &b, ""));
    CHECK(a == 0 && b == 0);
    CHECK_OK(net_ports_parse(&a, &b, "30000-30100"));
    CHECK(a == 30000 && b == 30100);
    CHECK_OK(net_ports_parse(&a, &b, "5"));
    CHECK(a == 5 && b == 5);
    CHECK_FAILS(net_ports_parse(&a, &b, "9-5"), GT_MISUSE, "port-range");
    CHECK_FAILS(net_ports_parse(&a, &b, "1-70000"), GT_MISUSE, "port-range");
    CHECK_FAILS(net_ports_parse(&a, &b, "x"), GT_MISUSE, "port-range");
}

/* ---- host lists ---------------------------------------------------------------------------- */

static void host_lists_are_expanded(void)
{
    static const struct {
        const char *list, *hosts;
    } cases[] = { { "node", "node" },
                  { "a,b", "a b" },
                  { "gpu[01-03,7],login", "gpu01 gpu02 gpu03 gpu7 login" },
                  { "r[1-2]n[1-2]", "r1n1 r1n2 r2n1 r2n2" },
                  { "x[9-11].net", "x9.net x10.net x11.net" },
                  { "n[0-99999999],z", "n0" },
                  { "c-1_a.b", "c-1_a.b" } };
    char host[64], all[512];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        all[0] = '\0';
        for (uint64_t k = 0; strlen(all) < strlen(cases[i].hosts); k++) {
            if (!CHECK_OK(net_hostlist_get(host, sizeof host, cases[i].list, k)))
                break;
            snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", k ? " " : "", host);
        }
        CHECKF(!strcmp(all, cases[i].hosts), "'%s' not '%s'", all, cases[i].hosts);
    }
    CHECK_FAILS(net_hostlist_get(host, sizeof host, "a,b", 2), GT_NOT_FOUND, "fewer");
    CHECK_OK(net_hostlist_get(host, sizeof host, "n[0-99999999],z", 100000000));
    CHECK(!strcmp(host, "z"));
}

static void what_is_no_host_list_is_refused(void)
{
    /* clang-format off */
    static const char *const bad[] = { "", ",", "a,,b", "a[", "a[]", "a[1", "a[1-]", "a[-1]", "a[2-1]",
        "a[1,]", "a]", "a b", "a;b", "a[1][2][3][4][5]", "a[1234567890]", "a[1-999999999][1-999999999]" };
    /* clang-format on */
    char host[64];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECKF(net_hostlist_get(host, sizeof host, bad[i], 1000) == GT_FORMAT, "'%s'", bad[i]);
    CHECK_FAILS(net_hostlist_get(host, 4, "abcdef", 0), GT_FORMAT, "too long");
}

static void tasks_and_hosts_files_are_read(void)
{
    int n;
    char host[64];
    CHECK_OK(net_tasks_get(&n, "2(x3),1", 0));
    CHECK(n == 2);
    CHECK_OK(net_tasks_get(&n, "2(x3),1", 2));
    CHECK(n == 2);
    CHECK_OK(net_tasks_get(&n, "2(x3),1", 3));
    CHECK(n == 1);
    CHECK_FAILS(net_tasks_get(&n, "2(x3),1", 4), GT_NOT_FOUND, "");
    CHECK_FAILS(net_tasks_get(&n, "2(x", 4), GT_FORMAT, "");
    CHECK_OK(net_hosts_line(host, sizeof host, &n, "  user@nodeA slots=4  # four GPUs"));
    CHECK(n == 4 && !strcmp(host, "user@nodeA"));
    CHECK_OK(net_hosts_line(host, sizeof host, &n, "nodeB\r"));
    CHECK(n == 1 && !strcmp(host, "nodeB"));
    CHECK_OK(net_hosts_line(host, sizeof host, &n, "node1:2 # as mpirun has it"));
    CHECK(n == 2 && !strcmp(host, "node1"));
    CHECK_OK(net_hosts_line(host, sizeof host, &n, "user@node1:16"));
    CHECK(n == 16 && !strcmp(host, "user@node1"));
    CHECK_OK(net_hosts_line(host, sizeof host, &n, "fd00::2 slots=3"));
    CHECK(n == 3 && !strcmp(host, "fd00::2"));
    CHECK_FAILS(net_hosts_line(host, sizeof host, &n, "node1:x"), GT_FORMAT, "HOST:N");
    CHECK_FAILS(net_hosts_line(host, sizeof host, &n, "node1:"), GT_FORMAT, "HOST:N");
    CHECK_FAILS(net_hosts_line(host, sizeof host, &n, ":4"), GT_FORMAT, "HOST:N");
    CHECK_FAILS(net_hosts_line(host, sizeof host, &n, "node1:2 slots=2"), GT_FORMAT, "twice");
    CHECK_OK(net_hosts_line(host, sizeof host, &n, "# nothing"));
    CHECK(n == 0);
    CHECK_FAILS(net_hosts_line(host, sizeof host, &n, "-oProxyCommand=x"), GT_FORMAT, "no host");
    CHECK_FAILS(net_hosts_line(host, sizeof host, &n, "a slots=0"), GT_FORMAT, "slots");
    CHECK_FAILS(net_hosts_line(host, sizeof host, &n, "a b"), GT_FORMAT, "HOST");
    CHECK_FAILS(net_hosts_line(host, sizeof host, &n, "$(reboot)"), GT_FORMAT, "no host");
}

/* ---- identities ------------------------------------------------------------------------------ */

static void clear_identity(void)
{
    /* clang-format off */
    static const char *const names[] = { "GEARTRAIN_RANK", "GEARTRAIN_SIZE", "GEARTRAIN_ROOT",
        "GEARTRAIN_SECRET", "GEARTRAIN_JOB", "GEARTRAIN_PORTS", "RANK", "WORLD_SIZE", "MASTER_ADDR",
        "MASTER_PORT", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "SLURM_STEP_ID", "SLURM_PROCID",
        "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NODELIST", "SLURM_JOB_ID", "SLURM_LOCALID", "SLURM_NODEID",
        "SLURM_STEP_TASKS_PER_NODE", "TORCHELASTIC_RUN_ID", "OMPI_COMM_WORLD_RANK", "PMIX_RANK",
        "OMPI_COMM_WORLD_SIZE", "SLURM_NTASKS", "SLURM_NPROCS",
        "GEARTRAIN_LOCAL_RANK", "GEARTRAIN_LOCAL_SIZE", "GEARTRAIN_LISTEN_FD" };
    /* clang-format on */
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unsetenv(names[i]);
}

static void every_launcher_names_the_rank(void)
{
    net_config *c;
    net_identity a, b;
    char path[256];
    clear_settings();
    clear_identity();
    CHECK_OK(net_config_read(&c));
    snprintf(path, sizeof path, "%s/new/secret", check_folder());
    CHECK_OK(net_config_set(c, "secret-file", path));
    CHECK_OK(net_identity_find(&a, c));
    CHECK(a.rank == 0 && a.size == 1 && !strcmp(a.source, "alone") && a.listen_fd == -1);

    setenv("RANK", "1", 1);
    setenv("WORLD_SIZE", "4", 1);
    setenv("MASTER_ADDR", "127.0.0.1", 1);
    setenv("MASTER_PORT", "29500", 1);
    setenv("LOCAL_RANK", "1", 1);
    setenv("LOCAL_WORLD_SIZE", "2", 1);
    CHECK_OK(net_identity_find(&a, c));
    CHECK(a.rank == 1 && a.size == 4 && a.local_rank == 1 && a.local_size == 2 && a.port == 29500);
    CHECK(a.has_secret && !strcmp(a.host, "127.0.0.1") && !strcmp(a.source, "torchrun"));
    setenv("TORCHELASTIC_RUN_ID", "r7", 1);
    CHECK_OK(net_identity_find(&b, c));
    CHECK(b.port == 29501 && memcmp(a.secret, b.secret, NET_SECRET) != 0);

    setenv("SLURM_STEP_ID", "0", 1);
    setenv("SLURM_JOB_ID", "77", 1);
    setenv("SLURM_PROCID", "2", 1);
    setenv("SLURM_LOCALID", "0", 1);
    setenv("SLURM_NODEID", "1", 1);
    setenv("SLURM_STEP_NUM_TASKS", "3", 1);
    setenv("SLURM_STEP_TASKS_PER_NODE", "2,1", 1);
    setenv("SLURM_STEP_NODELIST", "localhost,other[1-2]", 1);
    unsetenv("RANK");
    CHECK_OK(net_identity_find(&a, c));
    CHECK(a.rank == 2 && a.size == 3 && a.local_rank == 0 && a.local_size == 1 && a.has_secret);
    CHECK(!strcmp(a.host, "localhost") && !strcmp(a.source, "Slurm") && a.ports == 16);
    CHECK(a.port >= 25000 && a.port + a.ports - 1 <= 29999);
    setenv("SLURM_JOB_ID", "78", 1);
    CHECK_OK(net_identity_find(&b, c));
    CHECK(memcmp(a.secret, b.secret, NET_SECRET) != 0);
    setenv("SLURM_STEP_ID", "4294967291", 1);            /* a batch script is no rank */
    CHECK_OK(net_identity_find(&b, c));
    CHECK(!strcmp(b.source, "alone"));

    setenv("GEARTRAIN_RANK", "0", 1);
    setenv("GEARTRAIN_SIZE", "2", 1);
    setenv("GEARTRAIN_ROOT", "[::1]:4000", 1);
    setenv("GEARTRAIN_SECRET", "zz", 1);
    CHECK_FAILS(net_identity_find(&a, c), GT_FORMAT, "hexadecimal");
    unsetenv("GEARTRAIN_SECRET");
    CHECK_OK(net_identity_find(&a, c));
    CHECK(!a.has_secret && !strcmp(a.host, "::1") && a.port == 4000);
    CHECK_OK(net_config_set(c, "rendezvous", "elsewhere:99"));
    CHECK_OK(net_identity_find(&a, c));
    CHECK(!strcmp(a.host, "elsewhere") && a.port == 99);
    setenv("GEARTRAIN_RANK", "2", 1);
    CHECK_FAILS(net_identity_find(&a, c), GT_MISUSE, "rank 2 of 2");
    setenv("GEARTRAIN_RANK", "x", 1);
    CHECK_FAILS(net_identity_find(&a, c), GT_MISUSE, "GEARTRAIN_RANK is 'x'");
    net_config_release(c);
    clear_identity();
}

/* "NAME=VALUE ..." into the environment. */
static void set_all(const char *words)
{
    char text[512], *save = NULL;
    snprintf(text, sizeof text, "%s", words);
    for (char *w = strtok_r(text, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
        char *equals = strchr(w, '=');
        *equals = '\0';
        setenv(w, equals + 1, 1);
    }
}

#define SLURM(rank, size) \
    "SLURM_JOB_ID=7 SLURM_STEP_ID=0 SLURM_STEP_NODELIST=localhost SLURM_PROCID=" #rank " SLURM_STEP_NUM_TASKS=" #size \
    " "
#define BY_HAND(rank, size) "RANK=" #rank " WORLD_SIZE=" #size " MASTER_ADDR=127.0.0.1 MASTER_PORT=29500 "
#define TORCHRUN(rank, size, width) BY_HAND(rank, size) "TORCHELASTIC_RUN_ID=none LOCAL_WORLD_SIZE=" #width " "
#define MPIRUN(rank, size) "OMPI_COMM_WORLD_RANK=" #rank " OMPI_COMM_WORLD_SIZE=" #size " "
#define LAUNCH(rank, size) "GEARTRAIN_RANK=" #rank " GEARTRAIN_SIZE=" #size " GEARTRAIN_ROOT=127.0.0.1:4000 "

/* Who is followed when several launchers have left variables. */
static void the_inner_launcher_is_followed(void)
{
    static const struct {
        const char *words, *source;
        int rank, size;
    } cases[] = {
        /* srun -N2 --ntasks-per-node=1 torchrun --nproc-per-node=4 */
        { SLURM(1, 2) TORCHRUN(5, 8, 4), "torchrun", 5, 8 },
        { SLURM(0, 1) TORCHRUN(3, 4, 4), "torchrun", 3, 4 },
        /* srun of torchruns that know nothing of each other */
        { SLURM(2, 3) TORCHRUN(1, 2, 2), "torchrun", 1, 2 },
        { MPIRUN(1, 2) TORCHRUN(5, 8, 4), "torchrun", 5, 8 },
        /* mpirun in salloc: srun started its daemons, of which this host's is the second */
        { SLURM(1, 2) MPIRUN(0, 1), "Open MPI", 0, 1 },
        /* sbatch: the script's own process is no rank */
        { "SLURM_JOB_ID=7 SLURM_PROCID=0 SLURM_NTASKS=8 SLURM_NPROCS=8 ", "alone", 0, 1 },
        { "SLURM_JOB_ID=7 SLURM_PROCID=0 SLURM_STEP_ID=4294967291 SLURM_STEP_NUM_TASKS=1 ", "alone", 0, 1 },
        { "SLURM_JOB_ID=7 SLURM_PROCID=0 SLURM_NTASKS=8 " LAUNCH(1, 2), "geartrain launch", 1, 2 },
        { "SLURM_JOB_ID=7 SLURM_PROCID=0 SLURM_NTASKS=8 " BY_HAND(1, 2), "torchrun", 1, 2 },
        /* srun inside a batch script */
        { "SLURM_NTASKS=8 " SLURM(3, 4), "Slurm", 3, 4 },
        /* something inside geartrain launch, which removes what it finds */
        { LAUNCH(0, 1) SLURM(2, 4), "Slurm", 2, 4 },
        { LAUNCH(0, 1) TORCHRUN(2, 4, 4), "torchrun", 2, 4 },
        /* torchrun's variables, by a script */
        { SLURM(2, 4) BY_HAND(2, 4), "Slurm", 2, 4 },
        { SLURM(0, 1) BY_HAND(3, 4), "torchrun", 3, 4 },
        { SLURM(1, 2) BY_HAND(5, 8) "LOCAL_WORLD_SIZE=4 ", "torchrun", 5, 8 },
        { LAUNCH(1, 2) BY_HAND(1, 2), "geartrain launch", 1, 2 }
    };
    static const char *const contradictions[] = {
        SLURM(2, 4) BY_HAND(0, 1), LAUNCH(1, 2) BY_HAND(0, 2), MPIRUN(1, 2) BY_HAND(1, 4),
        SLURM(1, 2) BY_HAND(3, 8) "LOCAL_WORLD_SIZE=4 "
    };
    net_config *c;
    net_identity w;
    char path[256];
    check_allow_warnings();             /* what the outer one says                           */
    clear_settings();
    CHECK_OK(net_config_read(&c));
    snprintf(path, sizeof path, "%s/inner/secret", check_folder());
    CHECK_OK(net_config_set(c, "secret-file", path));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        clear_identity();
        set_all(cases[i].words);
        if (CHECK_OK(net_identity_find(&w, c)))
            CHECKF(!strcmp(w.source, cases[i].source) && w.rank == cases[i].rank && w.size == cases[i].size,
                   "%s: rank %d of %d by %s", cases[i].words, w.rank, w.size, w.source);
    }
    for (size_t i = 0; i < sizeof contradictions / sizeof *contradictions; i++) {
        clear_identity();
        set_all(contradictions[i]);
        CHECK_FAILS(net_identity_find(&w, c), GT_MISUSE, "but the variables RANK and WORLD_SIZE say");
    }
    clear_identity();
    net_config_release(c);
}

static void the_secret_file_is_ours_alone(void)
{
    unsigned char a[NET_SECRET], b[NET_SECRET];
    struct stat s;
    char path[256];
    snprintf(path, sizeof path, "%s/deep/er/secret", check_folder());
    CHECK_OK(net_secret_file(a, path));
    CHECK_OK(net_secret_file(b, path));
    CHECK(memcmp(a, b, sizeof a) == 0);
    CHECK(stat(path, &s) == 0 && (s.st_mode & 0777) == 0600);
    CHECK(chmod(path, 0640) == 0);
    CHECK_FAILS(net_secret_file(b, path), GT_IO, "chmod 600");
    CHECK(chmod(path, 0600) == 0);
    CHECK_OK(gt_file_write(path, "short\n", 6));
    CHECK(chmod(path, 0600) == 0);
    CHECK_FAILS(net_secret_file(b, path), GT_FORMAT, "hexadecimal");
}

/* ---- who is stuck ------------------------------------------------------------------------------ */

#define SECOND UINT64_C(1000000000)

static stall look(const stall_rank *ranks, int count, char *text, size_t size)
{
    gt_text t = { 0 };
    const stall s = stall_find(ranks, count, 10 * SECOND, &t);
    snprintf(text, size, "%s", t.data ? t.data : "");
    gt_text_release(&t);
    return s;
}

static void the_late_rank_is_found(void)
{
    char text[2048];
    stall_rank r[4];
    for (int i = 0; i < 4; i++)
        r[i] = (stall_rank){ .name = i == 3 ? "rank 3 (b, pid 9)" : "rank",
                             .started = 183,
                             .finished = 182,
                             .age = 12 * SECOND,
                             .waits_for = (i + 3) % 4,
                             .text = "all-reduce #183" };
    r[0].age = 11 * SECOND;
    CHECK(look(r, 4, text, sizeof text).culprit == -1);                  /* a ring of waiting */
    CHECKF(strstr(text, "a circle") != NULL, "%s", text);
    r[3] = (stall_rank){ .name = "rank 3 (b, pid 9)", .started = 182, .finished = 182, .waits_for = -1, .text = "" };
    stall s = look(r, 4, text, sizeof text);
    CHECK(s.found && s.culprit == 3 && s.age == 12 * SECOND);
    CHECKF(strstr(text, "rank 3 (b, pid 9) does nothing in the network (182 operations started, others "
                        "183)")
               != NULL,
           "%s", text);
    CHECKF(strstr(text, "rank 0 waits for rank 3") != NULL, "%s", text);
    r[3].silent = 1;
    look(r, 4, text, sizeof text);
    CHECKF(strstr(text, "no sign of life") != NULL, "%s", text);
    r[3] = (stall_rank){ .name = "rank 3 (b, pid 9)", .started = 183, .finished = 183, .waits_for = -1, .text = "" };
    CHECK(look(r, 4, text, sizeof text).culprit == 3);                  /* by who waits for whom */
    for (int i = 0; i < 4; i++)
        r[i].age = 9 * SECOND;
    CHECK(!look(r, 4, text, sizeof text).found);
    CHECK(text[0] == '\0');
}

static void waiting_for_a_rank_that_computes_is_no_stall(void)
{
    char text[512] = "";
    stall_rank r[2] = { { "rank 0", 4, 4, 0, -1, "evaluating", 0, 0 },
                        { "rank 1", 5, 4, 500 * SECOND, 0, "all-reduce", 0, 0 } };
    CHECK(!look(r, 2, text, sizeof text).found && !text[0]);
    r[0].silent = 1;                        /* what it said last does not count when it is frozen */
    CHECK(look(r, 2, text, sizeof text).found);
    r[0].silent = 0;
    r[0].text = "";
    CHECK(look(r, 2, text, sizeof text).found);
}

static void one_stall_is_one_stall(void)
{
    char text[2048];
    stall_rank r[2] = { { "rank 0", 5, 4, 11 * SECOND, 1, "x", 0, 0 }, { "rank 1", 4, 4, 0, -1, "", 0, 0 } };
    const uint64_t key = look(r, 2, text, sizeof text).key;
    r[0].age = 40 * SECOND;
    CHECK(look(r, 2, text, sizeof text).key == key);
    r[0].started = 6;
    CHECK(look(r, 2, text, sizeof text).key != key);

    /* Two began together: which of them waited longest differs from heartbeat to heartbeat. */
    stall_rank both[3] = { { "rank 0", 5, 4, 11 * SECOND, 1, "x", 0, 0 },
                           { "rank 1", 4, 4, 0, -1, "", 0, 0 },
                           { "rank 2", 5, 4, 11 * SECOND + 1, 1, "x", 0, 0 } };
    const stall first = look(both, 3, text, sizeof text);
    both[0].age += 2;
    const stall again = look(both, 3, text, sizeof text);
    CHECK(first.found && again.found && first.key == again.key && first.culprit == 1 && again.culprit == 1);
}

const check_case check_cases[] = {
    CASE(hmac_is_that_of_rfc_4231),
    CASE(mac_is_over_label_and_all_parts),
    CASE(proofs_depend_on_every_byte),
    CASE(hellos_survive_the_wire),
    CASE(hellos_that_nobody_says_are_refused),
    CASE(what_keeps_ranks_apart_is_named),
    CASE(control_messages_survive_the_wire),
    CASE(lengths_are_bounded_by_kind),
    CASE(defaults_are_complete),
    CASE(the_strongest_origin_wins),
    CASE(other_libraries_names_are_understood),
    CASE(what_other_libraries_know_better_is_passed_over),
    CASE(wrong_settings_are_refused_by_name),
    CASE(only_what_must_agree_is_hashed),
    CASE(interface_patterns_fit_names),
    CASE(an_unknown_interface_lists_those_there_are),
    CASE(port_ranges_are_read),
    CASE(host_lists_are_expanded),
    CASE(what_is_no_host_list_is_refused),
    CASE(tasks_and_hosts_files_are_read),
    CASE(every_launcher_names_the_rank),
    CASE(the_inner_launcher_is_followed),
    CASE(the_secret_file_is_ours_alone),
    CASE(the_late_rank_is_found),
    CASE(one_stall_is_one_stall),
    CASE(waiting_for_a_rank_that_computes_is_no_stall),
    { 0 }
};
