/* Published tables as samples: units (elements and bytes, ms and us), bus bandwidth, routing that is known, one
 * device, version and kernel, and hostile text. */
#include "calibrate/fit/fit.h"
#include "calibrate/fit/import.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

#include <cmocka.h>

static void assert_near(double found, double expected, double tolerance)
{
    if (!(fabs(found - expected) <= tolerance))
        fail_msg("found %.12g; expected %.12g", found, expected);
}

typedef struct fixture {
    moe_samples *samples;
    moe_import_tally *tally;
    moe_diag *diag;
    char *messages;
    size_t length;
    FILE *stream;
} fixture;

static fixture *open_fixture(void)
{
    fixture *f = talloc_zero(NULL, fixture);
    f->stream = open_memstream(&f->messages, &f->length);
    f->diag = moe_diag_create(f, f->stream);
    f->samples = moe_samples_create(f);
    f->tally = moe_import_tally_create(f);
    return f;
}

static void close_fixture(fixture *f)
{
    fclose(f->stream);
    free(f->messages);
    talloc_free(f);
}

static bool read_named(fixture *f, const char *name, const char *text, moe_import_options options)
{
    const bool fine =
        moe_import_text(f->samples, name, text, strlen(text), &options, f->tally, f->diag) != NULL;
    fflush(f->stream);
    return fine;
}

static bool read_text(fixture *f, const char *text, moe_import_options options)
{
    return read_named(f, "table.csv", text, options);
}

static size_t left_out(const fixture *f, const char *reason)
{
    for (size_t i = 0; i < f->tally->count; i++) {
        if (strstr(f->tally->reasons[i].text, reason) != NULL)
            return f->tally->reasons[i].count;
    }
    return 0;
}

static double bus_gb_per_s(const moe_sample *sample, double factor)
{
    return factor * sample->first.bytes / sample->seconds / 1e9;
}

/* --- NCCL tables -------------------------------------------------------------------------------------- */

#define NCCL_HEADER                                                                                \
    "gpu,src_lib,src_ver,device,op_name,kernel_source,nccl_dtype,num_gpus,message_size,latency\n"

/* ai-dynamo/aiconfigurator (Apache-2.0), h100_sxm, NCCL 2.29.2: 268,435,456 half elements. Read as bytes, or its
 * latency as us, the row would say half, or a thousand times, of what eight H100 do: 445 GB/s. */
static void test_elements_and_milliseconds(void **state)
{
    (void)state;
    fixture *f = open_fixture();
    assert_true(read_text(
        f,
        NCCL_HEADER
        "h100_sxm,nccl,2.29.2,NVIDIA H100 80GB HBM3,all_reduce,NCCL,half,8,268435456,2.11106\n",
        (moe_import_options){0}));
    assert_int_equal(f->samples->count, 1);
    const moe_sample *sample = &f->samples->items[0];
    assert_int_equal(sample->first.collective, MOE_ALL_REDUCE);
    assert_near(sample->first.bytes, 536870912, 0);
    assert_near(sample->seconds, 2.11106e-3, 1e-12);
    assert_near(bus_gb_per_s(sample, 2 * 7.0 / 8), 445, 1);
    close_fixture(f);
}

static void test_bytes_of_a_dtype(void **state)
{
    (void)state;
    const char *text = NCCL_HEADER "x,nccl,2.1,X,all_gather,NCCL,half,4,512,0.01\n"
                                   "x,nccl,2.1,X,all_gather,NCCL,int8,4,512,0.01\n";
    fixture *f = open_fixture();
    assert_true(read_text(f, text, (moe_import_options){0}));
    assert_int_equal(f->samples->count, 1);
    assert_near(f->samples->items[0].first.bytes, 1024, 0);
    assert_int_equal(left_out(f, "other dtypes"), 1);
    close_fixture(f);
    f = open_fixture();
    assert_true(read_text(f, text, (moe_import_options){.dtype = "int8"}));
    assert_int_equal(f->samples->count, 1);
    assert_near(f->samples->items[0].first.bytes, 512, 0);
    close_fixture(f);
}

static void test_newest_version_and_copies(void **state)
{
    (void)state;
    const char *text = NCCL_HEADER "x,nccl,2.9.4,X,alltoall,NCCL,half,8,512,0.03\n"
                                   "x,nccl,2.27.3,X,alltoall,NCCL,half,8,512,0.01\n"
                                   "x,trtllm,2.27.3,X,alltoall,NCCL,half,8,512,0.01\n"
                                   "x,nccl,2.9.4,X,alltoall,NCCL,half,2,512,0.02\n"
                                   "x,nccl,2.27.3,X,alltoall,NCCL,half,8,1024,0\n";
    fixture *f = open_fixture();
    assert_true(read_text(f, text, (moe_import_options){0}));
    assert_int_equal(f->samples->count, 2); /* of two ranks there is the old version only */
    assert_near(f->samples->items[0].seconds, 2e-5, 1e-12);
    assert_near(f->samples->items[1].seconds, 1e-5, 1e-12);
    assert_int_equal(left_out(f, "other versions"), 1);
    assert_int_equal(left_out(f, "copies"), 1);
    assert_int_equal(left_out(f, "time of 0"), 1);
    assert_string_equal(f->tally->versions, "2.9.4, 2.27.3");
    close_fixture(f);
    f = open_fixture();
    assert_true(read_text(f, text, (moe_import_options){.version = "2.9.4"}));
    assert_int_equal(f->samples->count, 2);
    assert_near(f->samples->items[1].seconds, 3e-5, 1e-12);
    close_fixture(f);
}

static void test_one_device(void **state)
{
    (void)state;
    const char *text = NCCL_HEADER "a,nccl,2.1,A,alltoall,NCCL,half,8,512,0.03\n"
                                   "b,nccl,2.1,B,alltoall,NCCL,half,8,512,0.03\n"
                                   "c,nccl,2.1,C,alltoall,NCCL,half,8,512,0.04\n";
    fixture *f = open_fixture();
    assert_false(read_text(f, text, (moe_import_options){0}));
    assert_non_null(strstr(f->messages, "the table is of a, b, c"));
    close_fixture(f);
    f = open_fixture();
    assert_false(read_text(f, text, (moe_import_options){.device = "d"}));
    assert_non_null(strstr(f->messages, "no row is of device \"d\""));
    close_fixture(f);
    f = open_fixture();
    assert_true(read_text(f, text, (moe_import_options){.device = "a"}));
    assert_int_equal(f->samples->count, 1);
    assert_int_equal(left_out(f, "other devices"), 2);
    assert_non_null(strstr(f->messages, "those of b too: one measurement published twice"));
    assert_null(strstr(f->messages, "those of c"));
    close_fixture(f);
}

/* --- GEMM and MoE tables ------------------------------------------------------------------------------ */

static void test_gemm_units(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "gemm_dtype,kernel_source,m,n,k,latency_us\nbfloat16,torch,8192,8192,8192,1400\n",
        "framework,version,device,gemm_dtype,m,n,k,latency\nvllm,1,H,bfloat16,8192,8192,8192,1.4\n",
    };
    for (size_t i = 0; i < 2; i++) {
        fixture *f = open_fixture();
        assert_true(read_text(f, texts[i], (moe_import_options){0}));
        assert_int_equal(f->samples->count, 1);
        assert_near(f->samples->items[0].seconds, 1.4e-3, 1e-12);
        assert_near(f->samples->items[0].k, 8192, 0);
        close_fixture(f);
    }
}

static void test_kernels_are_not_mixed(void **state)
{
    (void)state;
    fixture *f = open_fixture();
    assert_true(read_text(f,
                          "gemm_dtype,kernel_source,m,n,k,latency_us\n"
                          "bfloat16,rare,1,2,3,5\n"
                          "bfloat16,usual,1,2,3,6\nbfloat16,usual,1,2,4,7\n"
                          "fp8,usual,1,2,3,4\n",
                          (moe_import_options){0}));
    assert_int_equal(f->samples->count, 2);
    assert_near(f->samples->items[0].seconds, 6e-6, 1e-15);
    assert_int_equal(left_out(f, "kernel rare"), 1);
    assert_int_equal(left_out(f, "other dtypes"), 1);
    close_fixture(f);
}

static void test_file_name_names_the_device(void **state)
{
    (void)state;
    const char *text = "gemm_dtype,m,n,k,latency_us\nbfloat16,1,2,3,5\n";
    fixture *f = open_fixture();
    assert_true(read_named(f, "data/h100_sxm__vllm_0.24.0.csv", text,
                           (moe_import_options){.device = "h100_sxm"}));
    assert_false(read_named(f, "data/h100_sxm__vllm_0.24.0.csv", text,
                            (moe_import_options){.device = "h200_sxm"}));
    assert_non_null(strstr(f->messages, "by its name, the table is of device \"h100_sxm\""));
    close_fixture(f);
}

#define MOE_HEADER                                                                                 \
    "moe_dtype,kernel_source,num_tokens,hidden_size,inter_size,topk,num_experts,moe_tp_size,"      \
    "moe_ep_size,distribution,latency_us\n"

/* The collector's rule by hand: 12 tokens of top-2 over 8 experts, stride 4: slot 0 gives tokens 0..11 to experts
 * 0..7 and 0..3, slot 1 to 4..7, 0..7: three rows each. 3 tokens (fewer than the stride): 0, 4/3, 8/3 go to
 * experts 0, 1, 2 and 4, 5, 6. */
static void test_balanced_rows(void **state)
{
    (void)state;
    fixture *f = open_fixture();
    assert_true(read_text(f,
                          MOE_HEADER "bfloat16,k,12,4096,14336,2,8,2,1,balanced,100\n"
                                     "bfloat16,k,3,4096,14336,2,8,1,1,balanced,90\n"
                                     "bfloat16,k,5,4096,14336,2,8,1,2,balanced,80\n"
                                     "bfloat16,k,12,4096,14336,2,8,1,1,power_law_1.2,120\n",
                          (moe_import_options){0}));
    assert_int_equal(f->samples->count, 2);
    const moe_sample *whole = &f->samples->items[0], *few = &f->samples->items[1];
    assert_near(whole->ffn, 7168, 0); /* cut by tensor parallelism */
    assert_true(whole->gated);
    for (int i = 0; i < 8; i++)
        assert_near(whole->rows[i], 3, 0);
    static const double expected[8] = {1, 1, 1, 0, 1, 1, 1, 0};
    for (int i = 0; i < 8; i++)
        assert_near(few->rows[i], expected[i], 0);
    assert_int_equal(left_out(f, "under expert parallelism"), 1);
    assert_int_equal(left_out(f, "counts that are not published"), 1);
    close_fixture(f);
}

static void test_balanced_rows_sum_up(void **state)
{
    (void)state;
    static const int cases[][3] = {
        {16384, 8, 256}, {1, 6, 160}, {77, 6, 256}, {1000, 10, 512}, {42, 6, 256}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[512];
        snprintf(text, sizeof text, MOE_HEADER "bfloat16,k,%d,512,512,%d,%d,1,1,balanced,100\n",
                 cases[i][0], cases[i][1], cases[i][2]);
        fixture *f = open_fixture();
        assert_true(read_text(f, text, (moe_import_options){0}));
        double sum = 0;
        for (int e = 0; e < cases[i][2]; e++)
            sum += f->samples->items[0].rows[e];
        assert_near(sum, cases[i][0] * cases[i][1], 0);
        close_fixture(f);
    }
}

static void test_moe_refuses_what_cannot_be(void **state)
{
    (void)state;
    fixture *f = open_fixture();
    assert_false(read_text(f,
                           MOE_HEADER "bfloat16,k,12,4096,14336,9,8,1,1,balanced,100\n"
                                      "bfloat16,k,12,4096,14336,2,8,3,1,balanced,100\n"
                                      "bfloat16,k,12,4096,14336,2,99999,1,1,balanced,100\n",
                           (moe_import_options){0}));
    assert_int_equal(moe_diag_error_count(f->diag), 3);
    assert_non_null(strstr(f->messages, "table.csv:2:"));
    assert_non_null(strstr(f->messages, "num_experts is \"99999\""));
    close_fixture(f);
}

/* --- DeepEP ------------------------------------------------------------------------------------------- */

static void test_deepep_low_latency(void **state)
{
    (void)state;
    fixture *f = open_fixture();
    assert_true(read_text(
        f,
        "gpu,src_lib,src_ver,device,op_name,kernel_source,node_num,hidden_size,num_token,num_topk,"
        "num_experts,combine_avg_t_us,combine_bandwidth_gbps,dispatch_avg_t_us,"
        "dispatch_bandwidth_gbps\n"
        "h,sglang,0.5.12,H,ll,deepep,1,7168,128,8,256,67,200,37,190\n"
        "h,sglang,0.5.6.post2,H,ll,deepep,1,7168,128,8,256,68,200,37,190\n"
        "h,sglang,0.5.6.post2,H,ll,deepep,4,7168,128,8,256,263,200,143,190\n"
        "h,sglang,0.5.12,H,ll,deepep,1,2048,128,8,256,30,200,20,190\n",
        (moe_import_options){0}));
    assert_int_equal(f->samples->count, 2); /* newest of each number of hosts */
    assert_near(f->samples->items[0].seconds, 67e-6, 1e-12);
    assert_int_equal(f->samples->items[1].ranks, 32);
    assert_int_equal(f->samples->items[1].hosts, 4);
    assert_near(f->samples->items[0].first.bytes, 128 * 8 * 7168 * 2.0, 0);
    assert_int_equal(f->samples->items[0].first.collective, MOE_ALL_TO_ALL_LOW_LATENCY);
    assert_int_equal(left_out(f, "other shapes"), 1);
    close_fixture(f);
}

/* Two hosts, 4096 tokens: 8 of 256 experts all on one of two hosts has chance C(128, 8) / C(256, 8) = 0.0035;
 * a token crosses once, so that the NIC of a device carries 4096 * 7168 * 2 * 0.9965 = 58.5 MB: half of what a
 * uniform all-to-all over two hosts would count. */
static void test_deepep_normal(void **state)
{
    (void)state;
    fixture *f = open_fixture();
    assert_true(read_text(
        f,
        "gpu,src_lib,src_ver,device,op_name,kernel_source,node_num,hidden_size,num_token,num_topk,"
        "num_experts,dispatch_sms,dispatch_transmit_us,dispatch_notify_us,combine_sms,"
        "combine_transmit_us,combine_notify_us\n"
        "h,s,1,H,normal,deepep,2,7168,4096,8,256,24,749,20,24,1777,23\n"
        "h,s,1,H,normal,deepep,2,7168,4096,8,256,4,3674,20,4,9394,23\n"
        "h,s,1,H,normal,deepep,8,7168,4096,8,256,24,5447,20,24,4475,8000\n",
        (moe_import_options){0}));
    assert_int_equal(f->samples->count, 1);
    assert_near(f->samples->items[0].seconds, 1.8e-3, 1e-12);
    assert_near(f->samples->items[0].first.bytes / 2, 4096 * 7168 * 2.0 * 0.9965, 1e4);
    assert_int_equal(left_out(f, "fewer than 24 SMs"), 1);
    assert_int_equal(left_out(f, "more than 4 hosts"), 1);
    close_fixture(f);
}

/* --- nccl-tests --------------------------------------------------------------------------------------- */

#define RANKS_2                                                                                    \
    "#  Rank  0 Group  0 Pid    101 on      node1 device  0 [0x0f] NVIDIA H100 80GB HBM3\n"        \
    "#  Rank  1 Group  0 Pid    102 on      node2 device  0 [0x0f] NVIDIA H100 80GB HBM3\n"
#define COLUMNS                                                                                    \
    "#                                         out-of-place                       in-place\n"      \
    "#  size  count  type  redop  root     time   algbw   busbw #wrong     time   algbw   busbw "  \
    "#wrong\n"                                                                                     \
    "#   (B) (elements)                    (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)\n"

static void test_nccl_text(void **state)
{
    (void)state;
    fixture *f = open_fixture();
    assert_true(read_text(f,
                          "# nThread 1 nGpus 1 minBytes 8 maxBytes 1024\n"
                          "# Collective test starting: all_reduce_perf\n" RANKS_2 COLUMNS
                          "           0   0  float  sum  -1   0.11  0.00  0.00  0  0.1  0.0 0.0 0\n"
                          "           8   2  float  sum  -1  20.50  0.00  0.00  0  19.9 0.0 0.0 0\n"
                          "  1048576 262144 float  sum  -1  50.00 20.97 20.97 N/A 99.0 1 1 N/A\n"
                          "# Out of bounds values : 0 OK\n# Avg bus bandwidth    : 7.0\n",
                          (moe_import_options){0}));
    assert_int_equal(f->samples->count, 2);
    const moe_sample *sample = &f->samples->items[1];
    assert_int_equal(sample->first.collective, MOE_ALL_REDUCE);
    assert_int_equal(sample->ranks, 2);
    assert_int_equal(sample->hosts, 2);
    assert_near(sample->first.bytes, 1048576, 0); /* bytes here, not elements */
    assert_near(sample->seconds, 50e-6, 1e-15);   /* out of place */
    assert_near(bus_gb_per_s(sample, 1), 20.97, 0.01);
    assert_int_equal(left_out(f, "0 bytes"), 1);
    assert_string_equal(f->messages, "");
    close_fixture(f);
}

/* Without "# Rank" lines, busbw / algbw tells the ranks: 1.75 is an all-reduce of 8, 0.875 an exchange of 8. */
static void test_nccl_ranks_from_bandwidths(void **state)
{
    (void)state;
    fixture *f = open_fixture();
    assert_true(read_named(f, "out.txt",
                           COLUMNS "1048576 262144 float sum -1 100 10.49 18.35 0 1 1 1 0\n",
                           (moe_import_options){0}));
    assert_int_equal(f->samples->items[0].ranks, 8);
    assert_int_equal(f->samples->items[0].first.collective, MOE_ALL_REDUCE);
    assert_true(read_named(f, "alltoall.txt",
                           COLUMNS "1048576 32768 float none -1 100 10.49 9.18 0 1 1 1 N/A\n",
                           (moe_import_options){0}));
    assert_int_equal(f->samples->items[1].ranks, 8);
    assert_int_equal(f->samples->items[1].first.collective, MOE_ALL_TO_ALL);
    assert_false(read_named(f, "out.txt",
                            COLUMNS "1048576 32768 float none -1 100 10.49 9.18 0 1 1 1 N/A\n",
                            (moe_import_options){0}));
    assert_non_null(strstr(f->messages, "does not say which test it is"));
    close_fixture(f);
}

static void test_nccl_mislabelled(void **state)
{
    (void)state;
    fixture *f = open_fixture();
    assert_true(read_text(f,
                          "# all_reduce_perf\n" RANKS_2 COLUMNS
                          "1048576 262144 float sum -1 100 10.49 18.35 0 1 1 1 0\n",
                          (moe_import_options){0}));
    assert_non_null(strstr(f->messages, "busbw / algbw is 1.749; all_reduce of 2 ranks has 1.000"));
    close_fixture(f);
}

static void test_nccl_broken(void **state)
{
    (void)state;
    fixture *f = open_fixture();
    assert_true(read_text(f,
                          "# all_reduce_perf\n" RANKS_2 COLUMNS
                          "8 2 float sum -1 20 0.00 0.00 0 19 0 0 0\n16 4 fl",
                          (moe_import_options){0}));
    assert_int_equal(f->samples->count, 1);
    assert_non_null(strstr(f->messages, "the last row has no end"));
    assert_false(read_text(f,
                           "# all_reduce_perf\n" RANKS_2 COLUMNS
                           "8 2 float sum -1 fast 0.00 0.00 0 19 0 0 0\n"
                           "8 2 quad sum -1 20 0.00 0.00 0 19 0 0 0\n8 2 float\n",
                           (moe_import_options){0}));
    assert_int_equal(f->samples->count, 1);
    assert_int_equal(moe_diag_error_count(f->diag), 3);
    assert_non_null(strstr(f->messages, "table.csv:7:18: error: the time is \"fast\""));
    assert_false(read_text(f, "# all_reduce_perf\n" COLUMNS, (moe_import_options){0}));
    assert_non_null(strstr(f->messages, "no row with a time"));
    close_fixture(f);
}

/* --- hostile tables ----------------------------------------------------------------------------------- */

static void test_hostile(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } rows[] = {
        {"", "of no known kind"},
        {"a,b,c\n1,2,3\n", "of no known kind"},
        {"gemm_dtype,m,n,k,m,latency_us\n", "column \"m\" stands twice"},
        {"gemm_dtype,m,n,latency_us\nbfloat16,1,2,3\n", "there is no column k"},
        {"gemm_dtype,m,n,k\nbfloat16,1,2,3\n", "there is no column latency_us"},
        {"gemm_dtype,m,n,k,latency_us\nbfloat16,1,2,3,nan\n", "table.csv:2:16: error: latency_us"},
        {"gemm_dtype,m,n,k,latency_us\nbfloat16,1,2,3,-4\n", "latency_us is \"-4\""},
        {"gemm_dtype,m,n,k,latency_us\nbfloat16,1.5,2,3,4\n", "m is \"1.5\"; expected a whole"},
        {"gemm_dtype,m,n,k,latency_us\nbfloat16,1e99,2,3,4\n", "m is \"1e99\""},
        {"gemm_dtype,m,n,k,latency_us\nbfloat16,1,2\n", "found 3 fields; expected 5"},
        {"gemm_dtype,m,n,k,latency_us\n\"bfloat16\",1,2,3,4\n", "found a quote"},
        {"gemm_dtype,m,n,k,latency_us\nbfloat16,1,2,3,4,5,6\n", "found 7 fields"},
        {"nccl_dtype,op_name,num_gpus,message_size,latency\nhalf,alltoall,1,8,2\n",
         "num_gpus is \"1\""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        fixture *f = open_fixture();
        assert_false(read_text(f, rows[i].text, (moe_import_options){0}));
        if (strstr(f->messages, rows[i].message) == NULL)
            fail_msg("\"%s\" gave \"%s\"", rows[i].text, f->messages);
        close_fixture(f);
    }
}

static void test_cut_file(void **state)
{
    (void)state;
    fixture *f = open_fixture();
    assert_true(read_text(f, "gemm_dtype,m,n,k,latency_us\r\nbfloat16,1,2,3,4\r\n\r\nbfloat16,1,2",
                          (moe_import_options){0}));
    assert_int_equal(f->samples->count, 1);
    assert_non_null(strstr(f->messages, "the file was cut; left out"));
    close_fixture(f);
}

/* --- what becomes of samples -------------------------------------------------------------------------- */

static const moe_cluster_spec h100 = {
    .name = "host",
    .hosts = 1,
    .devices_per_host = 8,
    .device = {.name = "H100-80",
               .peak_flop_per_s = 989e12,
               .memory_bytes = 80e9,
               .memory_bytes_per_s = 3.35e12,
               .sms = 132},
    .intra = {.kind = MOE_INTRA_NVSWITCH, .bandwidth_bytes_per_s = 450e9, .latency_s = 8e-7},
};

static void test_impossible_is_left_out(void **state)
{
    (void)state;
    fixture *f = open_fixture();
    assert_true(read_text(f,
                          "gemm_dtype,m,n,k,latency_us\nbfloat16,8192,8192,8192,1400\n"
                          "bfloat16,8192,8192,8192,1.4\n", /* ms, called us */
                          (moe_import_options){0}));
    const moe_samples *kept = moe_import_plausible(f, f->samples, &h100, f->tally, f->diag);
    assert_int_equal(kept->count, 1);
    assert_int_equal(left_out(f, "times the device's peak"), 1);
    close_fixture(f);
}

static void test_slow_path_is_left_out(void **state)
{
    (void)state;
    fixture *f = open_fixture();
    assert_true(read_text(f,
                          NCCL_HEADER "x,nccl,2.1,X,all_reduce,NCCL,half,8,67108864,100\n"
                                      "x,nccl,2.1,X,alltoall,NCCL,half,8,67108864,100\n",
                          (moe_import_options){0}));
    const moe_samples *kept = moe_import_plausible(f, f->samples, &h100, f->tally, f->diag);
    assert_int_equal(kept->count, 0);
    assert_int_equal(left_out(f, "slow path"), 2);
    close_fixture(f);
}

static void test_unit_warnings(void **state)
{
    (void)state;
    fixture *f = open_fixture();
    assert_true(read_text(f,
                          NCCL_HEADER "x,nccl,2.1,X,all_gather,NCCL,half,8,268435456,0.0014\n"
                                      "x,nccl,2.1,X,all_gather,NCCL,half,8,512,10.1\n",
                          (moe_import_options){0}));
    moe_import_plausible(f, f->samples, &h100, f->tally, f->diag);
    fflush(f->stream);
    assert_non_null(strstr(f->messages, "sizes in elements read as bytes"));
    assert_non_null(strstr(f->messages, "are times in us read as ms?"));
    close_fixture(f);
}

static void add_gemm(moe_samples *samples, double m, double n, double k)
{
    const moe_sample sample = {.kind = MOE_SAMPLE_GEMM,
                               .dtype = "bf16",
                               .ranks = 1,
                               .hosts = 1,
                               .m = m,
                               .n = n,
                               .k = k,
                               .seconds = 1e-5,
                               .repetitions = 1};
    moe_samples_add(samples, &sample);
}

/* 64 x 10 x 10 points of which one corner column (n, k = 640) is missing: the grid stays full. */
static void test_large_tables_are_divided(void **state)
{
    (void)state;
    void *owner = talloc_new(NULL);
    moe_samples *samples = moe_samples_create(owner);
    for (int m = 1; m <= 64; m++) {
        for (int n = 1; n <= 10; n++) {
            for (int k = 1; k <= 10; k++) {
                if (n < 10 || k < 10)
                    add_gemm(samples, m, 64 * n, 64 * k);
            }
        }
    }
    const moe_import_parts parts = moe_import_divide(owner, samples);
    assert_int_equal(parts.kept->count + parts.held_out->count, samples->count);
    /* m: 1 2 4 8 16 17 32 33 64; n, k: 64 128 256 512 576 640 and 64 128 256 512 576 */
    assert_int_equal(parts.kept->count, 9 * 6 * 5);
    bool rows_after[2] = {false, false};
    for (size_t i = 0; i < parts.kept->count; i++) {
        rows_after[0] = rows_after[0] || parts.kept->items[i].m == 17;
        rows_after[1] = rows_after[1] || parts.kept->items[i].m == 9;
    }
    assert_true(rows_after[0]);
    assert_false(rows_after[1]);
    talloc_free(owner);
}

static void test_whole_shapes_are_kept_back(void **state)
{
    (void)state;
    fixture *f = open_fixture();
    char text[2048] = MOE_HEADER;
    for (int shape = 1; shape <= 3; shape++) {
        for (int tensor = 1; tensor <= 2; tensor++)
            snprintf(text + strlen(text), sizeof text - strlen(text),
                     "bfloat16,k,8,%d,512,2,8,%d,1,balanced,100\n", 512 * shape, tensor);
    }
    assert_true(read_text(f, text, (moe_import_options){0}));
    const moe_import_parts parts = moe_import_divide(f, f->samples);
    assert_int_equal(parts.kept->count, 2); /* the first and third, uncut */
    assert_int_equal(parts.held_out->count, 4);
    assert_near(parts.kept->items[1].hidden, 1536, 0);
    close_fixture(f);
}

/* What a file of these samples says to its reader. */
static moe_samples *write_and_read(fixture *f)
{
    moe_import_machine(f->samples, &h100, "by hand");
    char *text;
    size_t length;
    FILE *stream = open_memstream(&text, &length);
    moe_samples_write(f->samples, stream);
    fclose(stream);
    moe_samples *again = moe_samples_parse(f, "samples.jsonl", text, length, f->diag);
    fflush(f->stream);
    free(text);
    if (again == NULL)
        fail_msg("%s", f->messages);
    return again;
}

/* What is written as JSON lines is read again: the same points. */
static void test_written_samples_are_read(void **state)
{
    (void)state;
    fixture *f = open_fixture();
    assert_true(read_text(f, MOE_HEADER "bfloat16,k,3,4096,14336,2,8,1,1,balanced,90\n",
                          (moe_import_options){0}));
    assert_true(
        read_text(f, "gemm_dtype,m,n,k,latency_us\nbfloat16,1,2,3,4\n", (moe_import_options){0}));
    assert_true(read_text(f, NCCL_HEADER "x,nccl,2.1,X,alltoall,NCCL,half,8,512,0.03\n",
                          (moe_import_options){0}));
    const moe_samples *again = write_and_read(f);
    assert_int_equal(again->count, 3);
    assert_int_equal(again->items[0].phase, MOE_SERVING);
    assert_near(again->items[0].rows[3], 0, 0);
    assert_near(again->items[1].seconds, 4e-6, 1e-15);
    assert_near(again->items[2].first.bytes, 1024, 0);
    assert_near(again->machine.link_bytes_per_s, 450e9, 0);
    close_fixture(f);
}

/* A fused layer is one of serving on both ways: a fit to the file is the fit to the table. */
static void test_written_experts_fit_the_same(void **state)
{
    (void)state;
    fixture *f = open_fixture();
    char text[8192] = MOE_HEADER;
    for (int hidden = 1024; hidden <= 4096; hidden *= 2) {
        for (int tokens = 8; tokens <= 16384; tokens *= 2) {
            const double flop_s = 2 * 6.0 * hidden * 4 * hidden * tokens / (0.6 * 989e12);
            const double bytes_s = 8 * 2 * 3.0 * hidden * 4 * hidden / (0.8 * 3.35e12);
            snprintf(text + strlen(text), sizeof text - strlen(text),
                     "bfloat16,k,%d,%d,%d,2,8,1,1,balanced,%.6g\n", tokens, hidden, 4 * hidden,
                     1e6 * (30e-6 + fmax(flop_s, bytes_s)));
        }
    }
    assert_true(read_text(f, text, (moe_import_options){0}));
    const moe_samples *again = write_and_read(f);
    assert_int_equal(again->count, 36);
    moe_compute_curve curves[2] = {{.norm = 2.7}, {.norm = 2.7}};
    assert_false(moe_fit_experts(f, again, MOE_FORWARD, &h100.device, 2, &curves[0]));
    assert_true(moe_fit_experts(f, f->samples, MOE_SERVING, &h100.device, 2, &curves[0]));
    assert_true(moe_fit_experts(f, again, MOE_SERVING, &h100.device, 2, &curves[1]));
    assert_int_equal(curves[1].origin, MOE_IMPORTED);
    assert_int_equal(curves[1].tile_rows, curves[0].tile_rows);
    assert_near(curves[1].start_s, curves[0].start_s, 0);
    assert_near(curves[1].memory_efficiency, curves[0].memory_efficiency, 0);
    assert_true(curves[0].efficiency.count > 0);
    assert_int_equal(curves[1].efficiency.count, curves[0].efficiency.count);
    for (size_t i = 0; i < curves[0].efficiency.count; i++) {
        assert_near(curves[1].efficiency.x[i], curves[0].efficiency.x[i], 0);
        assert_near(curves[1].efficiency.y[i], curves[0].efficiency.y[i], 0);
    }
    close_fixture(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_elements_and_milliseconds),
        cmocka_unit_test(test_bytes_of_a_dtype),
        cmocka_unit_test(test_newest_version_and_copies),
        cmocka_unit_test(test_one_device),
        cmocka_unit_test(test_gemm_units),
        cmocka_unit_test(test_kernels_are_not_mixed),
        cmocka_unit_test(test_file_name_names_the_device),
        cmocka_unit_test(test_balanced_rows),
        cmocka_unit_test(test_balanced_rows_sum_up),
        cmocka_unit_test(test_moe_refuses_what_cannot_be),
        cmocka_unit_test(test_deepep_low_latency),
        cmocka_unit_test(test_deepep_normal),
        cmocka_unit_test(test_nccl_text),
        cmocka_unit_test(test_nccl_ranks_from_bandwidths),
        cmocka_unit_test(test_nccl_mislabelled),
        cmocka_unit_test(test_nccl_broken),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_cut_file),
        cmocka_unit_test(test_impossible_is_left_out),
        cmocka_unit_test(test_slow_path_is_left_out),
        cmocka_unit_test(test_unit_warnings),
        cmocka_unit_test(test_large_tables_are_divided),
        cmocka_unit_test(test_whole_shapes_are_kept_back),
        cmocka_unit_test(test_written_samples_are_read),
        cmocka_unit_test(test_written_experts_fit_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
