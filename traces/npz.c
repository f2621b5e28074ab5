#include "traces/npz.h"

#include "configs/base/memory.h"
#include <inttypes.h>
#include <string.h>
#include <talloc.h>
#include <zlib.h>

enum {
    END_BYTES = 22,
    COMMENT_LIMIT_BYTES = 0xFFFF,
    CENTRAL_BYTES = 46,
    LOCAL_BYTES = 30,
    MEMBERS_LIMIT = 4096,
    NAME_LIMIT_BYTES = 255,
    STORED = 0,
    DEFLATED = 8,
    ENCRYPTED = 1,
    DEFLATE_RATIO = 1032, /* the most that RFC 1951 makes of one byte */
};

static const uint32_t end_magic = 0x06054B50, central_magic = 0x02014B50, local_magic = 0x04034B50;
static const uint32_t in_zip64 = UINT32_MAX; /* stands for a value that ZIP64's extra field has */

typedef struct member {
    const char *name; /* without ".npy" */
    const uint8_t *data;
    uint32_t packed_bytes;
    uint32_t unpacked_bytes;
    uint32_t crc;
    unsigned method;
} member;

struct moe_npz { /* owns names and unpacked arrays */
    member *members;
    size_t count;
    moe_where at;
};

static uint32_t word(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
           (uint32_t)bytes[3] << 24;
}

static unsigned half(const uint8_t *bytes)
{
    return (unsigned)bytes[0] | (unsigned)bytes[1] << 8;
}

/* ---- the directory --------------------------------------------------------------------------- */

/* The last record whose comment ends with the file; NULL where there is none. */
static const uint8_t *find_end(const uint8_t *bytes, size_t length)
{
    for (size_t comment = 0; comment <= COMMENT_LIMIT_BYTES && comment + END_BYTES <= length;
         comment++) {
        const uint8_t *record = bytes + length - END_BYTES - comment;
        if (word(record) == end_magic && half(record + 20) == comment)
            return record;
    }
    return NULL;
}

/* Where the member's data begin, and whether all of them lie before `limit`. */
static bool find_data(const uint8_t *bytes, size_t limit, uint32_t offset, const uint8_t *name,
                      size_t name_bytes, member *found)
{
    if (limit < LOCAL_BYTES || offset > limit - LOCAL_BYTES || word(bytes + offset) != local_magic)
        return false;
    const uint8_t *local = bytes + offset;
    const size_t start = offset + LOCAL_BYTES + half(local + 26) + half(local + 28);
    if (half(local + 26) != name_bytes || start > limit || found->packed_bytes > limit - start ||
        memcmp(local + LOCAL_BYTES, name, name_bytes) != 0)
        return false;
    found->data = bytes + start;
    return true;
}

static bool is_name(const uint8_t *name, size_t length)
{
    if (length > NAME_LIMIT_BYTES || length < 5 || memcmp(name + length - 4, ".npy", 4) != 0)
        return false;
    for (size_t i = 0; i < length; i++) {
        if (name[i] < ' ' || name[i] > '~')
            return false;
    }
    return true;
}

/* What is wrong with a member, or NULL. */
static const char *check_member(const member *found, unsigned flags)
{
    if ((flags & ENCRYPTED) != 0)
        return "is encrypted";
    if (found->method != STORED && found->method != DEFLATED)
        return "is packed by another method than deflate";
    if (found->packed_bytes == in_zip64 || found->unpacked_bytes == in_zip64)
        return "is of 4 GiB or more (ZIP64)";
    if (found->method == STORED && found->packed_bytes != found->unpacked_bytes)
        return "is stored in another size than its own";
    if (found->unpacked_bytes > (uint64_t)found->packed_bytes * DEFLATE_RATIO)
        return "says that it unpacks to more than deflate can make of it";
    return NULL;
}

/* One central header at *at; moves on behind it. */
static bool read_member(moe_npz *archive, const uint8_t *bytes, size_t limit, const uint8_t **at,
                        const uint8_t *end, moe_diag *diag)
{
    const uint8_t *header = *at;
    if (end - header < CENTRAL_BYTES || word(header) != central_magic) {
        moe_diag_error(diag, archive->at, "member %zu of this .npz has no central header",
                       archive->count);
        return false;
    }
    const size_t name_bytes = half(header + 28);
    const size_t rest = name_bytes + half(header + 30) + half(header + 32);
    const uint8_t *name = header + CENTRAL_BYTES;
    if ((size_t)(end - name) < rest || !is_name(name, name_bytes)) {
        moe_diag_error(diag, archive->at,
                       "member %zu of this .npz has no usable name (\"NAME.npy\")", archive->count);
        return false;
    }
    member found = {.method = half(header + 10),
                    .crc = word(header + 16),
                    .packed_bytes = word(header + 20),
                    .unpacked_bytes = word(header + 24)};
    found.name = moe_need(talloc_strndup(archive, (const char *)name, name_bytes - 4));
    const char *wrong = check_member(&found, half(header + 8));
    if (wrong == NULL && !find_data(bytes, limit, word(header + 42), name, name_bytes, &found))
        wrong = "does not lie in the file where its header says";
    if (wrong != NULL) {
        moe_diag_error(diag, archive->at, "array \"%s\" %s", found.name, wrong);
        return false;
    }
    archive->members[archive->count++] = found;
    *at = name + rest;
    return true;
}

static bool read_directory(moe_npz *archive, const uint8_t *bytes, const uint8_t *end,
                           moe_diag *diag)
{
    const size_t count = half(end + 10);
    const uint32_t offset = word(end + 16);
    const size_t before_end = (size_t)(end - bytes);
    if (half(end + 4) != 0 || half(end + 6) != 0 || half(end + 8) != count ||
        count > MEMBERS_LIMIT || offset > before_end || word(end + 12) > before_end - offset) {
        moe_diag_error(diag, archive->at,
                       "the directory of this .npz is not where its end says, or is on another "
                       "disk, in ZIP64, or "
                       "of more than %d members",
                       MEMBERS_LIMIT);
        return false;
    }
    archive->members = moe_need(talloc_array(archive, member, (unsigned)count + 1));
    const uint8_t *at = bytes + offset;
    for (size_t i = 0; i < count; i++) {
        if (!read_member(archive, bytes, offset, &at, end, diag))
            return false;
    }
    return true;
}

moe_npz *moe_npz_open(void *owner, const uint8_t *bytes, size_t length, moe_where at,
                      moe_diag *diag)
{
    const uint8_t *end = find_end(bytes, length);
    if (end == NULL) {
        moe_diag_error(diag, at, "no ZIP archive, or cut at its end");
        return NULL;
    }
    moe_npz *archive = moe_need(talloc_zero(owner, moe_npz));
    archive->at = at;
    if (!read_directory(archive, bytes, end, diag)) {
        talloc_free(archive);
        return NULL;
    }
    return archive;
}

size_t moe_npz_count(const moe_npz *archive)
{
    return archive->count;
}

const char *moe_npz_name(const moe_npz *archive, size_t i)
{
    return archive->members[i].name;
}

/* ---- one array ------------------------------------------------------------------------------- */

/* Exactly `found->unpacked_bytes` from exactly `found->packed_bytes`. */
static bool unpack(const member *found, uint8_t *into)
{
    z_stream stream = {.next_in = (uint8_t *)found->data, /* zlib does not write there */
                       .avail_in = found->packed_bytes,
                       .next_out = into,
                       .avail_out = found->unpacked_bytes};
    if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) /* negative: raw deflate, as in ZIP */
        moe_out_of_memory();
    const int result = inflate(&stream, Z_FINISH);
    inflateEnd(&stream);
    return result == Z_STREAM_END && stream.avail_in == 0 && stream.avail_out == 0;
}

static const member *find_member(const moe_npz *archive, const char *name, moe_diag *diag)
{
    const member *found = NULL;
    for (size_t i = 0; i < archive->count; i++) {
        if (strcmp(archive->members[i].name, name) != 0)
            continue;
        if (found != NULL) {
            moe_diag_error(diag, archive->at, "there are two arrays \"%s\"", name);
            return NULL;
        }
        found = &archive->members[i];
    }
    if (found == NULL)
        moe_diag_error(diag, archive->at, "there is no array \"%s\" in this .npz", name);
    return found;
}

/* The member's bytes, unpacked; NULL after a printed error. */
static const uint8_t *get_bytes(moe_npz *archive, const member *found, moe_diag *diag)
{
    const uint8_t *bytes = found->data;
    if (found->method == DEFLATED) {
        uint8_t *into = moe_need(talloc_size(archive, (size_t)found->unpacked_bytes + 1));
        if (!unpack(found, into)) {
            moe_diag_error(diag, archive->at,
                           "array \"%s\" does not unpack to the %" PRIu32 " bytes it says",
                           found->name, found->unpacked_bytes);
            talloc_free(into);
            return NULL;
        }
        bytes = into;
    }
    if (crc32_z(crc32(0, NULL, 0), bytes, found->unpacked_bytes) != found->crc) {
        moe_diag_error(diag, archive->at, "array \"%s\" is damaged: its CRC-32 is another one",
                       found->name);
        return NULL;
    }
    return bytes;
}

bool moe_npz_read(moe_npz *archive, const char *name, uint64_t limit_bytes, moe_npy *array,
                  moe_diag *diag)
{
    const member *found = find_member(archive, name, diag);
    if (found == NULL)
        return false;
    if (found->unpacked_bytes > limit_bytes) {
        moe_diag_error(diag, archive->at,
                       "array \"%s\" has %" PRIu32 " bytes; expected at most %" PRIu64, name,
                       found->unpacked_bytes, limit_bytes);
        return false;
    }
    const uint8_t *bytes = get_bytes(archive, found, diag);
    return bytes != NULL && moe_npy_parse(bytes, found->unpacked_bytes, array, archive->at, diag);
}
