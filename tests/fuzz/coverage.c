/* Coverage of modules compiled by gcc, for libFuzzer: one counter for each place that gcc marks.

   Linked into each extension by AISFAST_SANITIZE=coverage. gcc's -fsanitize-coverage=trace-pc calls
   __sanitizer_cov_trace_pc at every edge; libFuzzer (in atheris) wants arrays of 8-bit counters, and as many entries in
   a table of places. A place's counter is found by a hash: two may share one, which costs guidance and no correctness.
*/
#ifndef __GNUC__
#error "only of use with gcc's -fsanitize-coverage"
#endif
#include <stdint.h>

#define COUNTERS (1 << 14)

void __sanitizer_cov_8bit_counters_init(uint8_t *start, uint8_t *stop);
void __sanitizer_cov_pcs_init(const uintptr_t *start, const uintptr_t *stop);

static uint8_t counters[COUNTERS];
static uintptr_t places[COUNTERS][2]; /* address, flags */
static uintptr_t base;

__attribute__((constructor, no_sanitize_coverage)) static void tell(void)
{
    base = (uintptr_t) &tell;
    for (int i = 0; i < COUNTERS; i++)
        places[i][0] = (uintptr_t) &counters[i];
    __sanitizer_cov_8bit_counters_init(counters, counters + COUNTERS);
    __sanitizer_cov_pcs_init(places[0], places[COUNTERS]);
}

__attribute__((visibility("hidden"), no_sanitize_coverage)) void __sanitizer_cov_trace_pc(void)
{
    uintptr_t pc = (uintptr_t) __builtin_return_address(0) - base;
    uint8_t *counter = &counters[pc * 0x9e3779b97f4a7c15u >> 50];
    *counter += *counter < 255;
}

/* gcc reports comparisons of floats too, libFuzzer has no use for them */
__attribute__((visibility("hidden"))) void __sanitizer_cov_trace_cmpf(float a, float b)
{
    (void) a, (void) b;
}

__attribute__((visibility("hidden"))) void __sanitizer_cov_trace_cmpd(double a, double b)
{
    (void) a, (void) b;
}
