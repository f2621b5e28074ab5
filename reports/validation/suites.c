/* The validation suites there are, in the order they run. */
#include "reports/validation/suite.h"

#include <stddef.h>

extern const moe_validation_suite moe_validation_calibration;
extern const moe_validation_suite moe_validation_smartmoe;
extern const moe_validation_suite moe_validation_laer;
extern const moe_validation_suite moe_validation_loop;

const moe_validation_suite *const moe_validation_suites[] = {
    &moe_validation_calibration,
    &moe_validation_smartmoe,
    &moe_validation_laer,
    &moe_validation_loop,
    NULL,
};
