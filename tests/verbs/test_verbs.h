/* SPDX-License-Identifier: MIT */
/* tests/verbs/test_verbs.h - the cases of test_verbs.c that live in other files. */
#ifndef TESTS_TEST_VERBS_H
#define TESTS_TEST_VERBS_H

#include "tests/check.h"

/* test_verbs_choice.c */
void names_of_devices_are_matched_as_users_of_nccl_know_it(void);
void the_best_gid_is_global_then_v2_then_ipv4(void);
void two_gids_must_speak_the_same_roce_and_family(void);
void ports_are_paired_by_subnet_whatever_their_order(void);
void a_rail_below_a_quarter_of_the_best_is_dropped_on_both_ends(void);
void infiniband_takes_a_grh_only_between_subnets_or_when_asked(void);
void several_gids_are_tried_best_first(void);
void shares_add_up_and_follow_the_speeds(void);
void offers_survive_the_wire_and_nothing_less_does(void);
void a_message_is_as_long_as_its_head_says(void);

#endif
