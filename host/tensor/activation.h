/* SPDX-License-Identifier: MIT */
/* host/tensor/activation.h - the activations: one row each, which everything else is made from.
 *
 *   x gate(x)     gelu_tanh  gate = (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2
 *                 gelu_erf   gate = (1 + erf(x / sqrt 2)) / 2         Hendrycks and Gimpel, "GELUs", 2016
 *                 silu       gate = 1 / (1 + e^-x)                    Elfwing et al., 2017
 *                 relu       gate = x > 0
 *   act_tanh      tanh(x)
 *
 * To add one: its row here; NAME(x) and NAME_slope(x) in cl/activation.clh; and reference_NAME and
 * reference_NAME_slope in host/kernel/reference.c. A row: constant, name, and the option that makes
 * it the activation of an OpenCL program; programs without an option have the first row's. */
#ifndef GT_TENSOR_ACTIVATION_H
#define GT_TENSOR_ACTIVATION_H

#define ACTIVATIONS(A) \
    A(ACT_GELU_TANH, gelu_tanh, "") \
    A(ACT_GELU_ERF, gelu_erf, "-DACT=gelu_erf") \
    A(ACT_SILU, silu, "-DACT=silu") \
    A(ACT_RELU, relu, "-DACT=relu") \
    A(ACT_TANH, act_tanh, "-DACT=act_tanh")

#define ACTIVATION_CONSTANT(constant, name, option) constant,
typedef enum activation { ACT_NONE, ACTIVATIONS(ACTIVATION_CONSTANT) ACT_COUNT } activation;
#undef ACTIVATION_CONSTANT

const char *activation_name(activation a);          /* "gelu_tanh"; "none"             */
const char *activation_option(activation a);        /* of ACT_NONE: ""                 */

#endif
