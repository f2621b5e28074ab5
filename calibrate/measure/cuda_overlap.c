/* The kinds made of collectives: one alone, one beside a GEMM, two at once. */
#include "calibrate/measure/cuda_internal.h"

#include <math.h>

enum { MOST_CTAS = 64, MOST_SLOTS = 64 };

/* Operands of all active devices, then what the collectives move. */
static int make_all(moecal_cuda *cuda)
{
    for (int i = 0; i < cuda->active; i++)
        MOECAL_DO(moecal_operands_make(cuda, &cuda->device[i], MOST_SLOTS));
    for (int lane = 0; lane < MOECAL_LANES; lane++)
        if (cuda->lane[lane].exchange)
            MOECAL_DO(moecal_lane_fill(cuda, lane));
    return 0;
}

/* --- one collective --------------------------------------------------------------------------- */

static int collective_prepare(moecal_cuda *cuda, const moecal_point *point)
{
    MOECAL_DO(moecal_lane_prepare(cuda, point, 0, &point->first, 0));
    return make_all(cuda);
}

static int collective_issue(moecal_cuda *cuda, const moecal_point *point, int lane,
                            int64_t repetition)
{
    (void)point;
    return cuda->active > 0 ? moecal_lane_issue(cuda, lane, repetition) : 0;
}

static int collective_check(moecal_cuda *cuda, const moecal_point *point, moecal_check *check)
{
    (void)point;
    return moecal_lane_check(cuda, 0, check);
}

const moecal_operation moecal_operation_collective = {
    .prepare = collective_prepare, .issue = collective_issue, .check = collective_check};

/* --- beside a GEMM: lane 0 computes, lane 1 communicates ----------------------------------------------- */

/* A block of NCCL keeps an SM; it never takes more than 64 of them. */
static int ctas_of(const moecal_cuda *cuda, const moecal_point *point)
{
    double ctas = floor(point->sm_share * cuda->device[0].sms + 0.5);
    if (point->sm_share <= 0)
        return 0;
    return ctas < 1 ? 1 : ctas > MOST_CTAS ? MOST_CTAS : (int)ctas;
}

static int interference_prepare(moecal_cuda *cuda, const moecal_point *point)
{
    cuda->lanes = 2;
    cuda->launches = 2;
    MOECAL_DO(moecal_lane_prepare(cuda, point, 1, &point->first, ctas_of(cuda, point)));
    for (int i = 0; i < cuda->active; i++)
        moecal_gemm_operands(&cuda->device[i], point);
    return make_all(cuda);
}

static int interference_issue(moecal_cuda *cuda, const moecal_point *point, int lane,
                              int64_t repetition)
{
    if (lane == 0)
        return moecal_gemm_issue(cuda, point, repetition);
    return collective_issue(cuda, point, lane, repetition);
}

/* The collective's limit is 0: a single wrong byte counts as 1. */
static int interference_check(moecal_cuda *cuda, const moecal_point *point, moecal_check *check)
{
    MOECAL_DO(moecal_gemm_check(cuda, point, check));
    return moecal_lane_check(cuda, 1, check);
}

const moecal_operation moecal_operation_interference = {
    .prepare = interference_prepare, .issue = interference_issue, .check = interference_check};

/* --- two at once, on two communicators ---------------------------------------------------------- */

static int sharing_prepare(moecal_cuda *cuda, const moecal_point *point)
{
    cuda->lanes = 2;
    cuda->launches = 2;
    MOECAL_DO(moecal_lane_prepare(cuda, point, 0, &point->first, 0));
    MOECAL_DO(moecal_lane_prepare(cuda, point, 1, &point->second, 0));
    return make_all(cuda);
}

static int sharing_check(moecal_cuda *cuda, const moecal_point *point, moecal_check *check)
{
    (void)point;
    MOECAL_DO(moecal_lane_check(cuda, 0, check));
    return moecal_lane_check(cuda, 1, check);
}

const moecal_operation moecal_operation_sharing = {
    .prepare = sharing_prepare, .issue = collective_issue, .check = sharing_check};
