/* SPDX-License-Identifier: MIT */
/* cl/matrix_probe.cl - does this device's compiler reach matrix units, and do they count?
 *
 * One wave multiplies matrices of ones, 16 deep, so every element of the product is 16; each
 * lane stores the first element it holds. A result of 16 everywhere proves that the builtin
 * compiled, ran, and means what it should. out[lane], 64 floats; the launch has 64 lanes.
 * Where nothing is known the kernel stores 0, so it compiles everywhere.                */
#if defined(__gfx908__) || defined(__gfx90a__) || defined(__gfx940__) || defined(__gfx941__) \
    || defined(__gfx942__) || defined(__gfx950__)
typedef short short_x4 __attribute__((ext_vector_type(4)));
typedef float float_x4 __attribute__((ext_vector_type(4)));
#if defined(__gfx908__)
typedef short short_x2 __attribute__((ext_vector_type(2)));
#endif
static float first_element(void)
{
    float_x4 c = 0.0f;
#if defined(__gfx908__)
    const short_x2 one = (short)0x3F80;                 /* bf16 1.0; two steps of 8 */
    c = __builtin_amdgcn_mfma_f32_16x16x8bf16(one, one, c, 0, 0, 0);
    c = __builtin_amdgcn_mfma_f32_16x16x8bf16(one, one, c, 0, 0, 0);
#else
    const short_x4 one = (short)0x3F80;
    c = __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(one, one, c, 0, 0, 0);
#endif
    return c.x;
}

#elif defined(__gfx1100__) || defined(__gfx1101__) || defined(__gfx1102__) || defined(__gfx1103__) \
    || defined(__gfx1150__) || defined(__gfx1151__)
typedef short short_x16 __attribute__((ext_vector_type(16)));
typedef float float_x8 __attribute__((ext_vector_type(8)));
static float first_element(void)
{
    const short_x16 one = (short)0x3F80;
    float_x8 c = 0.0f;
    c = __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32(one, one, c);
    return c.s0;
}

#elif defined(__gfx1200__) || defined(__gfx1201__)
typedef short short_x8 __attribute__((ext_vector_type(8)));
typedef float float_x8 __attribute__((ext_vector_type(8)));
static float first_element(void)
{
    const short_x8 one = (short)0x3F80;
    float_x8 c = 0.0f;
    c = __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32_gfx12(one, one, c);
    return c.s0;
}

#elif defined(__NV_CL_C_VERSION)
static float first_element(void)
{
    const uint one = 0x3C003C00u;                       /* two halves of 1.0 */
    float c0 = 0.0f, c1 = 0.0f, c2 = 0.0f, c3 = 0.0f;
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0,%1,%2,%3}, {%4,%4,%4,%4}, {%4,%4}, {%0,%1,%2,%3};"
                 : "+f"(c0), "+f"(c1), "+f"(c2), "+f"(c3) : "r"(one));
    return c0;
}

#elif defined(XMX_LANES)
#define GROUP __attribute__((intel_reqd_sub_group_size(XMX_LANES)))
static float first_element(void)
{
    const int8 ones = (int8)0x3F803F80;                 /* two of bf16 1.0 each */
#if XMX_LANES == 8
    return intel_sub_group_bf16_bf16_matrix_mad_k16(ones, ones, (float8)0.0f).s0;
#else
    return intel_sub_group_bf16_bf16_matrix_mad_k16((short8)0x3F80, ones, (float8)0.0f).s0;
#endif
}

#else
static float first_element(void)
{
    return 0.0f;
}
#endif

#ifndef GROUP
#define GROUP
#endif
GROUP __kernel void matrix_probe(__global float *out)
{
    out[get_global_id(0)] = first_element();
}
