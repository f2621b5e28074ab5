#include "configs/base/utf8.h"
#include <string.h>

/* Bytes that the first byte announces, and the smallest point that needs so many (else: overlong).
 */
static size_t announced(unsigned char first, uint32_t *bits, uint32_t *smallest)
{
    if (first < 0x80) {
        *bits = first, *smallest = 0;
        return 1;
    }
    if ((first & 0xe0) == 0xc0) {
        *bits = first & 0x1f, *smallest = 0x80;
        return 2;
    }
    if ((first & 0xf0) == 0xe0) {
        *bits = first & 0x0f, *smallest = 0x800;
        return 3;
    }
    if ((first & 0xf8) == 0xf0) {
        *bits = first & 0x07, *smallest = 0x10000;
        return 4;
    }
    return 0;
}

size_t moe_utf8_decode(const char *text, size_t length, uint32_t *point)
{
    const unsigned char *bytes = (const unsigned char *)text;
    uint32_t value = 0, smallest = 0;
    const size_t count = length > 0 ? announced(bytes[0], &value, &smallest) : 0;
    if (count == 0 || count > length) {
        return 0;
    }
    for (size_t i = 1; i < count; i++) {
        if ((bytes[i] & 0xc0) != 0x80) {
            return 0;
        }
        value = value << 6 | (bytes[i] & 0x3f);
    }
    if (value < smallest || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff)) {
        return 0;
    }
    *point = value;
    return count;
}

size_t moe_utf8_count(const char *text, size_t length)
{
    size_t characters = 0;
    for (size_t at = 0; at < length; characters++) {
        uint32_t point;
        const size_t bytes = moe_utf8_decode(text + at, length - at, &point);
        at += bytes > 0 ? bytes : 1;
    }
    return characters;
}

bool moe_utf8_is_control(uint32_t point)
{
    return point < 0x20 || (point >= 0x7f && point < 0xa0) ||
           (point >= 0x200e && point <= 0x200f) || (point >= 0x2028 && point <= 0x202e) ||
           (point >= 0x2066 && point <= 0x2069) || point == 0xfeff || (point & 0xfffe) == 0xfffe;
}

bool moe_utf8_is_printable(const char *text, size_t most)
{
    const size_t length = strnlen(text, most + 1);
    uint32_t point;
    if (length > most) {
        return false;
    }
    for (size_t at = 0; at < length;) {
        const size_t bytes = moe_utf8_decode(text + at, length - at, &point);
        if (bytes == 0 || moe_utf8_is_control(point)) {
            return false;
        }
        at += bytes;
    }
    return true;
}
