/* NumPy archives: what NumPy writes is read, and whatever lies about itself is refused before memory is taken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>
#include <zlib.h>

#include "traces/npz.h"

enum { VALUES = 6000, ROOM = 1 << 16 };

/* An archive under construction, and where its central headers' fields lie, for tests to spoil. */
typedef struct archive {
    uint8_t bytes[ROOM];
    size_t length;
    size_t central; /* offset of the only central header */
} archive;

static void put(archive *a, uint32_t value, int width)
{
    for (int i = 0; i < width; i++)
        a->bytes[a->length++] = (uint8_t)(value >> (8 * i));
}

static void put_bytes(archive *a, const void *bytes, size_t length)
{
    assert_true(a->length + length < ROOM);
    memcpy(a->bytes + a->length, bytes, length);
    a->length += length;
}

/* "<u2" of shape (VALUES,): the value of item i is 3 i mod 1000. */
static size_t make_npy(uint8_t *into)
{
    char header[119]; /* with the ten bytes before and the line's end 128, as NumPy aligns */
    memset(header, ' ', sizeof header);
    int length = snprintf(header, sizeof header,
                          "{'descr': '<u2', 'fortran_order': False, 'shape': (%d,), }", VALUES);
    header[length] = ' ';
    header[117] = '\n';
    memcpy(into, "\x93NUMPY\x01\x00\x76\x00", 10);
    memcpy(into + 10, header, 118);
    for (int i = 0; i < VALUES; i++) {
        const unsigned value = (unsigned)(3 * i % 1000);
        into[128 + 2 * i] = (uint8_t)value;
        into[129 + 2 * i] = (uint8_t)(value >> 8);
    }
    return 128 + 2 * VALUES;
}

static size_t deflate_raw(const uint8_t *bytes, size_t length, uint8_t *into, size_t room)
{
    z_stream stream = {.next_in = (uint8_t *)bytes,
                       .avail_in = (unsigned)length,
                       .next_out = into,
                       .avail_out = (unsigned)room};
    assert_int_equal(deflateInit2(&stream, 9, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
    deflateEnd(&stream);
    return room - stream.avail_out;
}

static void put_common(archive *a, unsigned method, uint32_t crc, size_t packed, size_t unpacked)
{
    put(a, 20, 2);
    put(a, 0, 2); /* flags */
    put(a, method, 2);
    put(a, 0, 4); /* time, date */
    put(a, crc, 4);
    put(a, (uint32_t)packed, 4);
    put(a, (uint32_t)unpacked, 4);
    put(a, 10, 2); /* "counts.npy" */
}

static void put_central(archive *a, unsigned method, uint32_t crc, size_t packed, size_t unpacked)
{
    put(a, 0x02014B50, 4);
    put(a, 20, 2);
    put_common(a, method, crc, packed, unpacked);
    put(a, 0, 2); /* extra */
    put(a, 0, 2); /* comment */
    put(a, 0, 2);
    put(a, 0, 2);
    put(a, 0, 4);
    put(a, 0, 4); /* offset of the local header */
    put_bytes(a, "counts.npy", 10);
}

static void put_end(archive *a, unsigned members)
{
    const size_t directory_bytes = a->length - a->central;
    put(a, 0x06054B50, 4);
    put(a, 0, 4);
    put(a, members, 2);
    put(a, members, 2);
    put(a, (uint32_t)directory_bytes, 4);
    put(a, (uint32_t)a->central, 4);
    put(a, 0, 2);
}

/* As NumPy does: sizes of ZIP64 in the local header, with its extra field, real ones in the central. */
static archive *make_archive(void *owner, unsigned method)
{
    static uint8_t npy[ROOM], packed[ROOM];
    archive *a = talloc_zero(owner, archive);
    const size_t length = make_npy(npy);
    const uint32_t crc = (uint32_t)crc32(crc32(0, NULL, 0), npy, (unsigned)length);
    size_t packed_bytes = length;
    memcpy(packed, npy, length);
    if (method == 8)
        packed_bytes = deflate_raw(npy, length, packed, sizeof packed);
    put(a, 0x04034B50, 4);
    put_common(a, method, crc, UINT32_MAX, UINT32_MAX);
    put(a, 20, 2);
    put_bytes(a, "counts.npy", 10);
    put(a, 1, 2);
    put(a, 16, 2);
    put(a, (uint32_t)length, 4);
    put(a, 0, 4);
    put(a, (uint32_t)packed_bytes, 4);
    put(a, 0, 4);
    put_bytes(a, packed, packed_bytes);
    a->central = a->length;
    put_central(a, method, crc, packed_bytes, length);
    put_end(a, 1);
    return a;
}

static void poke(archive *a, size_t field, uint32_t value, int width)
{
    const size_t length = a->length;
    a->length = a->central + field;
    put(a, value, width);
    a->length = length;
}

enum {
    FLAGS = 8,
    METHOD = 10,
    CRC = 16,
    PACKED = 20,
    UNPACKED = 24,
    NAME_BYTES = 28,
    OFFSET = 42,
    NAME = 46
};

/* Every value, through both ways of storing. */
static void test_reads_what_numpy_writes(void **state)
{
    (void)state;
    const unsigned methods[] = {0, 8};
    for (int i = 0; i < 2; i++) {
        void *owner = talloc_new(NULL);
        moe_diag *diag = moe_diag_create(owner, stderr);
        archive *a = make_archive(owner, methods[i]);
        moe_npz *npz = moe_npz_open(owner, a->bytes, a->length, (moe_where){0}, diag);
        moe_npy array;
        assert_non_null(npz);
        assert_int_equal(moe_npz_count(npz), 1);
        assert_string_equal(moe_npz_name(npz, 0), "counts");
        assert_true(moe_npz_read(npz, "counts", ROOM, &array, diag));
        assert_int_equal(array.rank, 1);
        assert_int_equal(array.shape[0], VALUES);
        uint32_t values[VALUES];
        moe_npy_read(&array, 0, VALUES, values);
        for (uint32_t v = 0; v < VALUES; v++)
            assert_int_equal(values[v], 3 * v % 1000);
        talloc_free(owner);
    }
}

/* Opening or reading fails, with a message that has `part`. */
static void expect_refusal(const archive *a, uint64_t limit_bytes, const char *name,
                           const char *part)
{
    void *owner = talloc_new(NULL);
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    moe_diag *diag = moe_diag_create(owner, stream);
    moe_npy array;
    moe_npz *npz = moe_npz_open(owner, a->bytes, a->length, (moe_where){0}, diag);
    assert_false(npz != NULL && moe_npz_read(npz, name, limit_bytes, &array, diag));
    assert_int_equal(moe_diag_error_count(diag), 1);
    talloc_free(owner);
    fclose(stream);
    if (strstr(text, part) == NULL)
        fail_msg("expected \"%s\" in: %s", part, text);
    free(text);
}

static void test_refuses_what_lies(void **state)
{
    (void)state;
    static const struct {
        size_t field;
        uint32_t value;
        int width;
        const char *part;
    } lies[] = {
        {FLAGS, 1, 2, "encrypted"},
        {METHOD, 12, 2, "another method"},
        {METHOD, 0, 2, "another size than its own"},
        {CRC, 1, 4, "CRC-32"},
        {PACKED, UINT32_MAX, 4, "ZIP64"},
        {UNPACKED, UINT32_MAX, 4, "ZIP64"},
        {UNPACKED, UINT32_MAX - 1, 4, "more than deflate can make"}, /* a bomb, by its own words */
        {UNPACKED, 128, 4, "does not unpack to the 128 bytes"},      /* a bomb that says less */
        {UNPACKED, 128 + 2 * VALUES + 1, 4, "does not unpack"},
        {PACKED, ROOM, 4, "does not lie in the file"},
        {OFFSET, 1, 4, "does not lie in the file"},
        {OFFSET, UINT32_MAX - 7, 4, "does not lie in the file"},
        {NAME, 'C', 1, "does not lie in the file"}, /* another name than the local header's */
        {NAME, '\033', 1, "no usable name"},
        {NAME + 9, 'x', 1, "no usable name"},
        {NAME_BYTES, 0xFFFF, 2, "no usable name"},
        {0, 0, 4, "no central header"},
    };
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        void *owner = talloc_new(NULL);
        archive *a = make_archive(owner, 8);
        poke(a, lies[i].field, lies[i].value, lies[i].width);
        expect_refusal(a, ROOM, "counts", lies[i].part);
        talloc_free(owner);
    }
}

static void test_refuses_more_than_wanted(void **state)
{
    (void)state;
    archive *a = make_archive(NULL, 8);
    expect_refusal(a, 1000, "counts", "expected at most 1000");
    expect_refusal(a, ROOM, "iteration", "no array \"iteration\"");
    talloc_free(a);
}

/* Two central headers for one member: which is meant is not ours to guess. */
static void test_refuses_doubles(void **state)
{
    (void)state;
    archive *a = make_archive(NULL, 8);
    const size_t header = a->length - 22 - a->central;
    a->length -= 22;
    put_bytes(a, a->bytes + a->central, header);
    put_end(a, 2);
    expect_refusal(a, ROOM, "counts", "two arrays");
    talloc_free(a);
}

/* Cut anywhere, an archive is refused: its end is missing, or its middle. */
static void test_refuses_what_is_cut(void **state)
{
    (void)state;
    archive *a = make_archive(NULL, 8);
    const size_t whole = a->length;
    for (size_t length = 0; length < whole; length += 97) {
        a->length = length;
        expect_refusal(a, ROOM, "counts", "cut at its end");
    }
    a->length = whole;
    memmove(a->bytes + 200, a->bytes + 300, whole - 300);
    a->length = whole - 100;
    expect_refusal(a, ROOM, "counts", "");
    talloc_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_what_numpy_writes),  cmocka_unit_test(test_refuses_what_lies),
        cmocka_unit_test(test_refuses_more_than_wanted), cmocka_unit_test(test_refuses_doubles),
        cmocka_unit_test(test_refuses_what_is_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
