/* Every way to sum, for every kind of number, at sizes and starts that leave remainders: against sums one by one.

   Each array ends where its memory ends, so that a sanitizer sees a read beyond it. */

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../gradwatch/measure/sums.h"

/* A multiple of 1/8 between -16 and 16: every kind of number holds it exactly. */
static double value_at(size_t i) { return (double)((int)(i * 37 % 256) - 128) / 8; }

static uint32_t float32_bits(double value)
{
    float narrow = (float)value;
    uint32_t bits;
    memcpy(&bits, &narrow, sizeof bits);
    return bits;
}

static void write(char *to, Number number, double value)
{
    uint32_t bits = float32_bits(value);
    uint16_t bfloat16 = (uint16_t)(bits >> 16);
    uint16_t float16 = value == 0 ? 0 : (uint16_t)((bits >> 16 & 0x8000) | ((bits >> 13 & 0x3ffff) - (112 << 10)));
    const void *from[NUMBERS] = {&float16, &bfloat16, &bits, &value};
    memcpy(to, from[number], number_sizes[number]);
}

static int check(const Way *way, Number number, size_t count, size_t start)
{
    size_t size = number_sizes[number], bytes = (start + count) * size;
    char *memory = malloc(bytes ? bytes : 1), *numbers = memory + start * size;
    double expected = 0;
    for (size_t i = 0; i < count; i++) {
        write(numbers + i * size, number, value_at(i));
        expected += value_at(i) * value_at(i);
    }
    /* Sums of multiples of 1/64, so small, are exact in any order. */
    int wrong = way->of[number](numbers, count) != expected;
    if (number == FLOAT64)
        wrong |= scaled_squares((const double *)numbers, count, 0x1p-600) != expected * 0x1p-600 * 0x1p-600;
    free(memory);
    if (wrong)
        printf("%s, kind %d, %zu numbers from the %zu.\n", way->name, (int)number, count, start);
    return wrong;
}

int main(void)
{
    int wrong = 0;
    for (const Way *const *way = ways(); *way; way++)
        for (int number = 0; number < NUMBERS; number++)
            for (size_t start = 0; start < 3; start++) {
                for (size_t count = 0; count < 300; count++)
                    wrong |= check(*way, (Number)number, count, start);
                wrong |= check(*way, (Number)number, 100003, start);
            }
    return wrong;
}
