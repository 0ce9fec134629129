/* Sums of squares of numbers in memory, in float64. Nothing here knows of Python. */
#ifndef GRADWATCH_SUMS_H
#define GRADWATCH_SUMS_H

#include <stddef.h>

/* What lies in memory. A complex number is two real ones in a row. */
typedef enum { FLOAT16, BFLOAT16, FLOAT32, FLOAT64, NUMBERS } Number;

extern const size_t number_sizes[NUMBERS]; /* bytes */

/* The sum of the squares of so many numbers. NaN and Inf come out as themselves. */
typedef double (*Squares)(const void *numbers, size_t count);

/* One way to sum, for each kind of number. */
typedef struct {
    const char *name;
    Squares of[NUMBERS];
} Way;

/* The ways that this processor can go, fastest first; ends with NULL. */
const Way *const *ways(void);

/* The same of float64 numbers that are multiplied by scale first: for those whose squares leave the range. */
double scaled_squares(const double *numbers, size_t count, double scale);

#endif
