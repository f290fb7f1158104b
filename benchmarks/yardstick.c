/* A hand-written C yardstick for the throughput benchmark: what one core can do with the same method.
 *
 *     gcc -O3 -march=native -ffast-math -mprefer-vector-width=512 yardstick.c -o yardstick -lm
 *     ./yardstick 5                       five repeats; one line of JSON on stdout
 *     ./yardstick 5 100000 ou_f32         the same for one rate: repeats, paths, name of the rate
 *
 * Each normal comes from a counter-based generator, Philox4x32-10 (Salmon, Moraes, Dror & Shaw 2011), through
 * the Box-Muller transform; the jobs are Euler-Maruyama for an Ornstein-Uhlenbeck process and a double well, and
 * Milstein for a geometric Brownian motion, 1000 steps of 0.01 from x = 1, state and noise in registers. Rates are
 * in millions per CPU second of one core, best of the repeats: of normals, and of path-steps. "ou_saved" stores
 * every state of 10,000 paths into fresh memory, as a program does that asks for whole paths.
 *
 * The counter is (block of steps, 0, path low, path high), so no draw depends on the order of the work. With AVX-512
 * (F and DQ) the normals are written with intrinsics; elsewhere they are plain loops over lanes, which the compiler
 * vectorises with the mathematical library it has. Everything else is vector code of GCC and Clang for any machine.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef __AVX512DQ__
#include <immintrin.h>
#endif

#pragma GCC diagnostic ignored "-Wpsabi" /* wide vectors pass between inlined functions only */

#define INLINE static inline __attribute__((always_inline))
#define LANES 16 /* paths that advance together; one register of float32, two of float64 */

typedef float f32 __attribute__((vector_size(64)));
typedef double f64 __attribute__((vector_size(64)));

static double cpu_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Polynomials, highest coefficient first, by interpolation at Chebyshev nodes.
 * With u = m 2^e, m in [3/4, 3/2) and f = m - 1,
 *   float32  -2 ln(1 + f) = f^2 - 2 f + f^3 LOG32(f)
 *   float64  -2 ln(1 + f) = s (LOG64(s^2) s^2 - 4),  s = f / (2 + f)
 * and for at most an eighth of a turn t, sin(2 pi t) = t SIN(t^2), cos(2 pi t) = COS(t^2). */
static const float LOG32[8] = {0.1029518351f, -0.2179262879f, 0.2612283064f, -0.2876463475f,
                               0.3329889677f, -0.3999374812f, 0.5000028815f, -0.6666669263f};
static const float SIN32[4] = {-75.4016127f, 81.59254287f, -41.34166257f, 6.283185288f};
static const float COS32[5] = {59.22016896f, -85.44284467f, 64.93931614f, -19.73920865f, 1.f};
static const double LOG64[7] = {-0.302273617870623984, -0.305684653142012631, -0.36369177207608876,
                                -0.444443663613625286, -0.571428576653594542, -0.799999999986912915,
                                -1.33333333333333868};
static const double SIN64[7] = {3.78086895930229552, -15.0938042099871135, 42.058685020160894,
                                -76.7058597042745506, 81.6052492759480352, -41.3417022403996362,
                                6.28318530717958646};
static const double COS64[7] = {7.81029096814419057, -26.4242570348826894, 60.2446200859302898,
                                -85.4568170903411464, 64.9393940223653712, -19.7392088021784215, 1};

/* ------------------------------------------------------------------ normals with AVX-512 intrinsics */
#ifdef __AVX512DQ__
#define ISA "avx512"

/* Sixteen counters: even paths in the low halves of one set of 64-bit lanes, odd paths in another. vpmuludq reads
 * low halves only, so whatever the rounds leave in the high halves never has to be cleared. */
typedef struct { __m512i even[4], odd[4]; } Words;

#define XOR3(a, b, c) _mm512_ternarylogic_epi64(a, b, c, 0x96)
#define HIGH(a) _mm512_srli_epi64(a, 32)

INLINE void philox(Words *w, uint64_t seed) {
    const __m512i m0 = _mm512_set1_epi64(0xD2511F53), m1 = _mm512_set1_epi64(0xCD9E8D57);
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
#pragma GCC unroll 10
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
        const __m512i key0 = _mm512_set1_epi64(k0), key1 = _mm512_set1_epi64(k1);
        const __m512i pe = _mm512_mul_epu32(w->even[0], m0), qe = _mm512_mul_epu32(w->even[2], m1);
        const __m512i po = _mm512_mul_epu32(w->odd[0], m0), qo = _mm512_mul_epu32(w->odd[2], m1);
        w->even[0] = XOR3(HIGH(qe), w->even[1], key0);
        w->odd[0] = XOR3(HIGH(qo), w->odd[1], key0);
        w->even[2] = XOR3(HIGH(pe), w->even[3], key1);
        w->odd[2] = XOR3(HIGH(po), w->odd[3], key1);
        w->even[1] = qe, w->odd[1] = qo;
        w->even[3] = pe, w->odd[3] = po;
    }
}

INLINE Words counters(uint64_t path, uint32_t block) {
    Words w;
    const __m512i even = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
    const __m512i first = _mm512_add_epi64(_mm512_set1_epi64((long long)path), even);
    w.even[0] = w.odd[0] = _mm512_set1_epi64(block);
    w.even[1] = w.odd[1] = _mm512_setzero_si512();
    w.even[2] = first, w.odd[2] = _mm512_add_epi64(first, _mm512_set1_epi64(1));
    w.even[3] = w.odd[3] = _mm512_set1_epi64((long long)(path >> 32)); /* path is a multiple of 16: no carry */
    return w;
}

#define FMA32(a, b, c) _mm512_fmadd_ps(a, b, c)
#define SET32(v) _mm512_set1_ps(v)
#define FMA64(a, b, c) _mm512_fmadd_pd(a, b, c)
#define SET64(v) _mm512_set1_pd(v)

INLINE __m512 horner32(int n, const float *c, __m512 x) {
    __m512 y = SET32(c[0]);
    for (int i = 1; i < n; i++) y = FMA32(y, x, SET32(c[i]));
    return y;
}
INLINE __m512d horner64(int n, const double *c, __m512d x) {
    __m512d y = SET64(c[0]);
    for (int i = 1; i < n; i++) y = FMA64(y, x, SET64(c[i]));
    return y;
}

/* r = sqrt(-2 ln u), u = (w + 1/2) / 2^32 = m 2^e with m in [3/4, 3/2). */
INLINE __m512 radius32(__m512i w) {
    const __m512 u = FMA32(_mm512_cvtepu32_ps(w), SET32(0x1p-32f), SET32(0x1p-33f));
    const __m512 e = _mm512_getexp_ps(_mm512_mul_ps(u, SET32(4.f / 3)));
    const __m512 f = _mm512_sub_ps(_mm512_getmant_ps(u, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_src), SET32(1));
    const __m512 ff = _mm512_mul_ps(f, f);
    __m512 y = FMA32(_mm512_mul_ps(horner32(8, LOG32, f), f), ff, FMA32(SET32(-2), f, ff));
    y = FMA32(e, SET32(-1.38629436111989f), y);
    return _mm512_sqrt_ps(_mm512_max_ps(y, _mm512_setzero_ps()));
}

/* r (cos, sin) of w / 2^32 turns. Bits 31 and 30 of w + 1/8 turn number the quadrant; w << 2, read as signed, is four
 * times the offset from the middle of it, at most half a right angle. */
INLINE void polar32(__m512 r, __m512i w, f32 *x, f32 *y) {
    const __m512 t = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_slli_epi32(w, 2)), SET32(0x1p-34f));
    const __m512 tt = _mm512_mul_ps(t, t);
    const __m512 sine = _mm512_mul_ps(t, horner32(4, SIN32, tt)), cosine = horner32(5, COS32, tt);
    const __m512i q = _mm512_add_epi32(w, _mm512_set1_epi32(1 << 29)), sign = _mm512_set1_epi32(INT32_MIN);
    const __m512i q1 = _mm512_add_epi32(q, _mm512_set1_epi32(1 << 30));
    const __mmask16 odd = _mm512_test_epi32_mask(q, _mm512_set1_epi32(1 << 30));
    const __m512 a = _mm512_mask_blend_ps(odd, cosine, sine), b = _mm512_mask_blend_ps(odd, sine, cosine);
    /* 0x78: first operand exclusive-or (second and third) */
    *x = r * (__m512)_mm512_ternarylogic_epi32((__m512i)a, q1, sign, 0x78);
    *y = r * (__m512)_mm512_ternarylogic_epi32((__m512i)b, q, sign, 0x78);
}

/* Four normals for each of sixteen paths. */
INLINE void normals32(uint64_t path, uint32_t block, uint64_t seed, f32 z[4]) {
    Words w = counters(path, block);
    philox(&w, seed);
    for (int i = 0; i < 4; i += 2) {
        const __m512i u = _mm512_mask_blend_epi32(0xAAAA, w.even[i], _mm512_slli_epi64(w.odd[i], 32));
        const __m512i v = _mm512_mask_blend_epi32(0xAAAA, w.even[i + 1], _mm512_slli_epi64(w.odd[i + 1], 32));
        polar32(radius32(u), v, &z[i], &z[i + 1]);
    }
}

/* The same with 53-bit uniforms and 64-bit angles. */
INLINE __m512d radius64(__m512i w) {
    const __m512d u = FMA64(_mm512_cvtepi64_pd(_mm512_srli_epi64(w, 11)), SET64(0x1p-53), SET64(0x1p-54));
    const __m512d e = _mm512_getexp_pd(_mm512_mul_pd(u, SET64(4.0 / 3)));
    const __m512d f = _mm512_sub_pd(_mm512_getmant_pd(u, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_src), SET64(1));
    const __m512d s = _mm512_div_pd(f, _mm512_add_pd(f, SET64(2))), ss = _mm512_mul_pd(s, s);
    __m512d y = _mm512_mul_pd(s, FMA64(horner64(7, LOG64, ss), ss, SET64(-4)));
    y = FMA64(e, SET64(-1.38629436111989062), y);
    return _mm512_sqrt_pd(_mm512_max_pd(y, _mm512_setzero_pd()));
}
INLINE void polar64(__m512d r, __m512i w, f64 *x, f64 *y) {
    const __m512d t = _mm512_mul_pd(_mm512_cvtepi64_pd(_mm512_slli_epi64(w, 2)), SET64(0x1p-66));
    const __m512d tt = _mm512_mul_pd(t, t);
    const __m512d sine = _mm512_mul_pd(t, horner64(7, SIN64, tt)), cosine = horner64(7, COS64, tt);
    const __m512i q = _mm512_add_epi64(w, _mm512_set1_epi64(1ll << 61)), sign = _mm512_set1_epi64(INT64_MIN);
    const __m512i q1 = _mm512_add_epi64(q, _mm512_set1_epi64(1ll << 62));
    const __mmask8 odd = _mm512_test_epi64_mask(q, _mm512_set1_epi64(1ll << 62));
    const __m512d a = _mm512_mask_blend_pd(odd, cosine, sine), b = _mm512_mask_blend_pd(odd, sine, cosine);
    *x = r * (__m512d)_mm512_ternarylogic_epi64((__m512i)a, q1, sign, 0x78);
    *y = r * (__m512d)_mm512_ternarylogic_epi64((__m512i)b, q, sign, 0x78);
}

/* Two normals for each of sixteen paths: z[0], z[1] of the even ones, z[2], z[3] of the odd ones. */
INLINE void normals64(uint64_t path, uint32_t block, uint64_t seed, f64 z[4]) {
    Words w = counters(path, block);
    philox(&w, seed);
    for (int half = 0; half < 2; half++) {
        const __m512i *c = half ? w.odd : w.even;
        const __m512i u = _mm512_mask_blend_epi32(0xAAAA, c[1], _mm512_slli_epi64(c[0], 32));
        const __m512i v = _mm512_mask_blend_epi32(0xAAAA, c[3], _mm512_slli_epi64(c[2], 32));
        polar64(radius64(u), v, &z[2 * half], &z[2 * half + 1]);
    }
}
static void philox_one(const uint32_t in[4], uint64_t seed, uint32_t out[4]) {
    Words w;
    for (int i = 0; i < 4; i++) w.even[i] = w.odd[i] = _mm512_set1_epi64(in[i]);
    philox(&w, seed);
    for (int i = 0; i < 4; i++) {
        uint64_t lanes[16];
        _mm512_storeu_si512(lanes, w.even[i]);
        _mm512_storeu_si512(lanes + 8, w.odd[i]);
        out[i] = (uint32_t)lanes[0];
        for (int l = 1; l < 16; l++)
            if ((uint32_t)lanes[l] != out[i]) out[i] = 0; /* fails the known answer */
    }
}

/* ------------------------------------------------------------------ normals in plain loops over lanes */
#else
#define ISA "portable"
#define LOOP _Pragma("GCC unroll 1") for (int l = 0; l < LANES; l++)

INLINE void philox_lanes(uint64_t c[4][LANES], uint64_t seed) {
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u)
        LOOP {
            const uint64_t p = 0xD2511F53ull * (c[0][l] & 0xFFFFFFFF), q = 0xCD9E8D57ull * (c[2][l] & 0xFFFFFFFF);
            c[0][l] = (q >> 32) ^ c[1][l] ^ k0;
            c[2][l] = (p >> 32) ^ c[3][l] ^ k1;
            c[1][l] = q, c[3][l] = p; /* only the low halves are words */
        }
}
INLINE void words(uint64_t path, uint32_t block, uint64_t seed, uint64_t c[4][LANES]) {
    LOOP c[0][l] = block, c[1][l] = 0, c[2][l] = path + (uint64_t)l, c[3][l] = path >> 32;
    philox_lanes(c, seed);
}

/* u = m 2^e by integers: with the bits of 3/4 taken off, the exponent field steps where the mantissa is 3/4. */
INLINE float radius32(uint32_t w) {
    const float u = (float)w * 0x1p-32f + 0x1p-33f;
    uint32_t bits, y = 0;
    memcpy(&bits, &u, 4);
    bits -= 0x3F400000u, y = (bits & 0x007FFFFFu) + 0x3F400000u;
    float m, p = LOG32[0];
    memcpy(&m, &y, 4);
    const float f = m - 1, e = (float)((int32_t)bits >> 23);
    for (int i = 1; i < 8; i++) p = p * f + LOG32[i];
    p = (p * f) * (f * f) + (f * f - 2 * f) - 1.38629436111989f * e;
    return sqrtf(p > 0 ? p : 0);
}
INLINE double radius64(uint64_t w) {
    /* In halves, because AVX2 converts no 64-bit integers. */
    const double u = (double)(int32_t)(w >> 38) * 0x1p-26 + ((double)(int32_t)(w >> 11 & 0x7FFFFFF) + 0.5) * 0x1p-53;
    uint64_t bits, y = 0;
    memcpy(&bits, &u, 8);
    bits -= 0x3FE8000000000000u, y = (bits & 0x000FFFFFFFFFFFFFu) + 0x3FE8000000000000u;
    double m, p = LOG64[0];
    memcpy(&m, &y, 8);
    const double f = m - 1, s = f / (2 + f), e = (double)((int32_t)(bits >> 32) >> 20);
    for (int i = 1; i < 7; i++) p = p * (s * s) + LOG64[i];
    p = s * (p * (s * s) - 4) - 1.38629436111989062 * e;
    return sqrt(p > 0 ? p : 0);
}
INLINE void polar32(float r, uint32_t w, float *x, float *y) {
    const float t = (float)(int32_t)(w << 2) * 0x1p-34f;
    const uint32_t q = w + (1u << 29);
    float s = SIN32[0], c = COS32[0];
    for (int i = 1; i < 4; i++) s = s * (t * t) + SIN32[i];
    for (int i = 1; i < 5; i++) c = c * (t * t) + COS32[i];
    s *= t;
    const int odd = (q >> 30) & 1;
    const float a = odd ? s : c, b = odd ? c : s;
    *x = r * ((int32_t)(q + (1u << 30)) < 0 ? -a : a);
    *y = r * ((int32_t)q < 0 ? -b : b);
}
INLINE void polar64(double r, uint64_t w, double *x, double *y) {
    const uint64_t v = w << 2;
    const double t = (double)(int32_t)(v >> 32) * 0x1p-34 + (double)(int32_t)(v >> 1 & 0x7FFFFFFF) * 0x1p-65;
    const uint64_t q = w + (1ull << 61);
    double s = SIN64[0], c = COS64[0];
    for (int i = 1; i < 7; i++) s = s * (t * t) + SIN64[i], c = c * (t * t) + COS64[i];
    s *= t;
    const int odd = (q >> 62) & 1;
    const double a = odd ? s : c, b = odd ? c : s;
    *x = r * ((int64_t)(q + (1ull << 62)) < 0 ? -a : a);
    *y = r * ((int64_t)q < 0 ? -b : b);
}

/* Four normals for each of sixteen paths; in float64 two: z[0], z[1] of the first eight, z[2], z[3] of the rest. */
INLINE void normals32(uint64_t path, uint32_t block, uint64_t seed, f32 z[4]) {
    uint64_t c[4][LANES];
    float lanes[4][LANES];
    words(path, block, seed, c);
    for (int i = 0; i < 4; i += 2)
        LOOP polar32(radius32((uint32_t)c[i][l]), (uint32_t)c[i + 1][l], &lanes[i][l], &lanes[i + 1][l]);
    memcpy(z, lanes, sizeof lanes);
}
INLINE void normals64(uint64_t path, uint32_t block, uint64_t seed, f64 z[4]) {
    uint64_t c[4][LANES];
    double lanes[2][LANES];
    words(path, block, seed, c);
    LOOP {
        const uint64_t u = c[0][l] << 32 | (c[1][l] & 0xFFFFFFFF), v = c[2][l] << 32 | (c[3][l] & 0xFFFFFFFF);
        polar64(radius64(u), v, &lanes[0][l], &lanes[1][l]);
    }
    memcpy(&z[0], &lanes[0][0], 64), memcpy(&z[1], &lanes[1][0], 64);
    memcpy(&z[2], &lanes[0][8], 64), memcpy(&z[3], &lanes[1][8], 64);
}
static void philox_one(const uint32_t in[4], uint64_t seed, uint32_t out[4]) {
    uint64_t c[4][LANES];
    for (int i = 0; i < 4; i++) LOOP c[i][l] = in[i];
    philox_lanes(c, seed);
    for (int i = 0; i < 4; i++) out[i] = (uint32_t)c[i][0];
}
#endif

/* ------------------------------------------------------------------ the jobs, for any machine */
enum Job { OU, DOUBLE_WELL, GBM };
#define DT 0.01
#define N_STEPS 1000
#define SEED 0x0123456789ABCDEFull

/* One step; `job` is a constant at every call, so each loop below holds one formula only.
 *   OU            dX = -theta X dt + sigma dW,      theta = 0.5, sigma = 0.7
 *   double well   dX = -4 X (X^2 - 1) dt + dW       (barrier 1, temperature 1/2)
 *   GBM           dX = mu X dt + sigma X dW,        mu = 0.05, sigma = 0.2, Milstein */
#define DEFINE_STEP(NAME, V, T)                                                                                   \
    INLINE V NAME(enum Job job, V x, V z) {                                                                       \
        const T h = (T)DT, root = (T)0.1;                                                                         \
        if (job == OU) return x * (1 - (T)0.5 * h) + z * ((T)0.7 * root);                                         \
        if (job == DOUBLE_WELL) return x * (1 + 4 * h - (4 * h) * (x * x)) + z * root;                            \
        return x * ((1 + (T)0.05 * h - (T)0.02 * h) + z * ((T)0.2 * root + ((T)0.02 * h) * z));                   \
    }
DEFINE_STEP(step32, f32, float)
DEFINE_STEP(step64, f64, double)

/* Two groups of sixteen paths at a time (float32): two independent chains of dependent operations. */
INLINE void paths32(enum Job job, long n_paths, float *final) {
    for (long p = 0; p < n_paths; p += 2 * LANES) {
        f32 x = (f32){0} + 1, y = x, z[4], w[4];
        for (uint32_t k = 0; k < N_STEPS; k += 4) {
            normals32((uint64_t)p, k / 4, SEED, z);
            normals32((uint64_t)p + LANES, k / 4, SEED, w);
            for (int j = 0; j < 4; j++) x = step32(job, x, z[j]), y = step32(job, y, w[j]);
        }
        memcpy(final + p, &x, 64), memcpy(final + p + LANES, &y, 64);
    }
}
INLINE void paths64(enum Job job, long n_paths, double *final) {
    for (long p = 0; p < n_paths; p += LANES) {
        f64 x = (f64){0} + 1, y = x, z[4];
        for (uint32_t k = 0; k < N_STEPS; k += 2) {
            normals64((uint64_t)p, k / 2, SEED, z);
            for (int j = 0; j < 2; j++) x = step64(job, x, z[j]), y = step64(job, y, z[j + 2]);
        }
        memcpy(final + p, &x, 64), memcpy(final + p + 8, &y, 64);
    }
}

/* Every state kept in fresh memory, sixteen paths a group: saved[group][step][lane]. Returns the last one. */
static double saved32(long n_paths) {
    const size_t row = (N_STEPS + 1) * LANES, size = row * (size_t)(n_paths / LANES);
    float *saved = malloc(size * sizeof *saved);
    if (!saved) exit(1);
    for (long p = 0; p < n_paths; p += LANES) {
        float *at = saved + row * (size_t)(p / LANES);
        f32 x = (f32){0} + 1, z[4];
        memcpy(at, &x, 64);
        for (uint32_t k = 0; k < N_STEPS; k += 4) {
            normals32((uint64_t)p, k / 4, SEED, z);
            for (uint32_t j = 0; j < 4; j++) x = step32(OU, x, z[j]), memcpy(at + (k + j + 1) * LANES, &x, 64);
        }
    }
    const double last = (double)saved[size - 1];
    free(saved);
    return last;
}
static double saved64(long n_paths) {
    const size_t row = (N_STEPS + 1) * LANES, size = row * (size_t)(n_paths / LANES);
    double *saved = malloc(size * sizeof *saved);
    if (!saved) exit(1);
    for (long p = 0; p < n_paths; p += LANES) {
        double *at = saved + row * (size_t)(p / LANES);
        f64 x[2] = {(f64){0} + 1, (f64){0} + 1}, z[4];
        memcpy(at, x, 128);
        for (uint32_t k = 0; k < N_STEPS; k += 2) {
            normals64((uint64_t)p, k / 2, SEED, z);
            for (uint32_t j = 0; j < 2; j++) {
                x[0] = step64(OU, x[0], z[j]), x[1] = step64(OU, x[1], z[j + 2]);
                memcpy(at + (k + j + 1) * LANES, x, 128);
            }
        }
    }
    const double last = saved[size - 1];
    free(saved);
    return last;
}

/* ------------------------------------------------------------------ checks */
typedef struct { double n, sum, squares, fourth; } Moments;

static void add(Moments *m, double x) {
    m->n++, m->sum += x, m->squares += x * x, m->fourth += x * x * x * x;
}
/* mean, variance and fourth moment of standard normals within 5 standard errors */
static int standard_normal(const Moments *m) {
    return fabs(m->sum / m->n) < 5 / sqrt(m->n) && fabs(m->squares / m->n - 1) < 5 * sqrt(2 / m->n) &&
           fabs(m->fourth / m->n - 3) < 5 * sqrt(96 / m->n);
}

static int known_answers(void) {
    static const uint32_t in[3][4] = {
        {0, 0, 0, 0},
        {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
        {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}};
    static const uint64_t seed[3] = {0, 0xffffffffffffffffull, 0x299f31d0a4093822ull};
    static const uint32_t out[3][4] = {
        {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
        {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
        {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}};
    int good = 1;
    for (int i = 0; i < 3; i++) {
        uint32_t got[4];
        philox_one(in[i], seed[i], got);
        good &= !memcmp(got, out[i], sizeof got);
    }
    return good;
}

#define N_CHECK 32768 /* groups of sixteen paths: 2 M float32 and 1 M float64 normals */
static Moments moments32(void) {
    Moments m = {0};
    for (uint64_t i = 0; i < N_CHECK; i++) {
        f32 z[4];
        normals32(LANES * i, 3, SEED, z);
        for (int j = 0; j < 4; j++)
            for (int l = 0; l < 16; l++) add(&m, (double)z[j][l]);
    }
    return m;
}
static Moments moments64(void) {
    Moments m = {0};
    for (uint64_t i = 0; i < N_CHECK; i++) {
        f64 z[4];
        normals64(LANES * i, 3, SEED, z);
        for (int j = 0; j < 4; j++)
            for (int l = 0; l < 8; l++) add(&m, z[j][l]);
    }
    return m;
}

/* ------------------------------------------------------------------ timing */
/* The sums are printed, so that no compiler may leave the work out. */
static double normals32_only(long groups) {
    f32 total = {0};
    for (long i = 0; i < groups; i++) {
        f32 z[4];
        normals32((uint64_t)(LANES * i), 0, SEED, z);
        total += (z[0] + z[1]) + (z[2] + z[3]);
    }
    double sum = 0;
    for (int l = 0; l < 16; l++) sum += (double)total[l];
    return sum;
}
static double normals64_only(long groups) {
    f64 total = {0};
    for (long i = 0; i < groups; i++) {
        f64 z[4];
        normals64((uint64_t)(LANES * i), 0, SEED, z);
        total += (z[0] + z[1]) + (z[2] + z[3]);
    }
    double sum = 0;
    for (int l = 0; l < 8; l++) sum += total[l];
    return sum;
}

#define BOOL(x) ((x) ? "true" : "false")
#define TIME(i, work, code)                                                                                       \
    if (!only || !strcmp(only, name[i])) {                                                                        \
        const double start = cpu_seconds();                                                                       \
        code;                                                                                                     \
        const double rate = (double)(work) / (cpu_seconds() - start) / 1e6;                                       \
        if (rate > best[i]) best[i] = rate;                                                                       \
    }

int main(int argc, char **argv) {
    enum { NORMALS32, NORMALS64, OU32, OU64, DW32, DW64, GBM32, GBM64, SAVED32, SAVED64, N_RATES };
    static const char *name[N_RATES] = {"normals_f32", "normals_f64", "ou_f32", "ou_f64", "double_well_f32",
                                        "double_well_f64", "gbm_f32", "gbm_f64", "ou_saved_f32", "ou_saved_f64"};
    const int repeats = argc > 1 ? atoi(argv[1]) : 3;
    const char *only = argc > 3 ? argv[3] : NULL;
    const long n_paths = (argc > 2 ? atol(argv[2]) : 100000) / 32 * 32, n_saved = (n_paths + 319) / 320 * 32;
    if (repeats < 1 || n_paths < 32) {
        fprintf(stderr, "usage: yardstick [repeats >= 1] [paths >= 32] [name of one rate]\n");
        return 2;
    }
    const long steps = n_paths * N_STEPS, groups = n_paths * 16;
    float *x32 = malloc((size_t)n_paths * sizeof *x32);
    double *x64 = malloc((size_t)n_paths * sizeof *x64), best[N_RATES] = {0}, sum = 0;
    Moments ou32 = {0}, ou64 = {0};
    if (!x32 || !x64) return 1;
    for (int repeat = 0; repeat < repeats; repeat++) {
        TIME(NORMALS32, 64 * groups, sum += normals32_only(groups));
        TIME(NORMALS64, 32 * groups, sum += normals64_only(groups));
        TIME(DW32, steps, paths32(DOUBLE_WELL, n_paths, x32));
        TIME(DW64, steps, paths64(DOUBLE_WELL, n_paths, x64));
        TIME(GBM32, steps, paths32(GBM, n_paths, x32));
        TIME(GBM64, steps, paths64(GBM, n_paths, x64));
        TIME(OU32, steps, paths32(OU, n_paths, x32));
        TIME(OU64, steps, paths64(OU, n_paths, x64));
        TIME(SAVED32, n_saved * N_STEPS, sum += saved32(n_saved));
        TIME(SAVED64, n_saved * N_STEPS, sum += saved64(n_saved));
    }
    /* The Euler chain x <- a x + b z is Gaussian with known moments: standardised, it ends as a standard normal. */
    const double a = 1 - 0.5 * DT, mean = pow(a, N_STEPS);
    const double deviation = sqrt(0.49 * DT * (1 - pow(a, 2 * N_STEPS)) / (1 - a * a));
    for (long i = 0; i < n_paths; i++) {
        if (best[OU32] > 0) add(&ou32, ((double)x32[i] - mean) / deviation);
        if (best[OU64] > 0) add(&ou64, (x64[i] - mean) / deviation);
    }
    const Moments z32 = moments32(), z64 = moments64();
    printf("{\"isa\": \"%s\", \"repeats\": %d, \"paths\": %ld", ISA, repeats, n_paths);
    for (int i = 0; i < N_RATES; i++)
        if (best[i] > 0) printf(", \"%s\": %.2f", name[i], best[i]);
    const int law32 = !ou32.n || standard_normal(&ou32), law64 = !ou64.n || standard_normal(&ou64);
    const int checks = known_answers() && standard_normal(&z32) && standard_normal(&z64) && law32 && law64;
    printf(", \"philox\": %s, \"moments_f32\": %s, \"moments_f64\": %s, \"ou_law_f32\": %s, \"ou_law_f64\": %s",
           BOOL(known_answers()), BOOL(standard_normal(&z32)), BOOL(standard_normal(&z64)), BOOL(law32), BOOL(law64));
    printf(", \"sum\": %.17g}\n", sum);
    free(x32);
    free(x64);
    return checks ? 0 : 1;
}
