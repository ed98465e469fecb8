/*
 * RELP's ordinary frames, taken into one block, and their answers.
 *
 * Optional, and without state. Anything that is in any way odd is left to the session, which is complete without
 * (`relp.py`). Reads what Python owns, writes only into objects it has made itself, and never past the length it has
 * computed.
 */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include "_scan.h"

enum {
    MOST_DIGITS = 9,
    HIGHEST_NUMBER = 999999999, /* 1 follows */
    LONGEST_ANSWER = 24,        /* a number and what is said */
};

static const char SYSLOG[] = " syslog ";
static const char OK[] = " rsp 6 200 OK\n";

/* A number of up to nine digits; where it ends, or NULL where none stands here. */
static const unsigned char *parse_number(const unsigned char *at, const unsigned char *stop, long *number)
{
    const unsigned char *first = at;

    for (*number = 0; at < stop && at - first < MOST_DIGITS && is_digit(*at); at++)
        *number = *number * 10 + (*at - '0');
    return at > first ? at : NULL;
}

/* Take apart the ordinary frame of this number that stands here: whole, ended by LF, and holding one line. */
static int take_record(const unsigned char *at, const unsigned char *stop, long expected, Py_ssize_t limit,
                       struct frame *found)
{
    const Py_ssize_t command = sizeof SYSLOG - 1;
    long number, length;

    at = parse_number(at, stop, &number);
    if (at == NULL || number != expected || stop - at <= command || memcmp(at, SYSLOG, (size_t)command) != 0)
        return 0;
    at = parse_number(at + command, stop, &length);
    if (at == NULL || at >= stop || *at != ' ' || length == 0 || length > limit)
        return 0;
    found->body = at + 1;
    if (stop - found->body <= length || found->body[length] != '\n')
        return 0;
    found->length = stripped(found->body, length);
    found->after = found->body + length + 1;
    return found->length > 0 && found->body[0] != 0xEF && memchr(found->body, '\n', (size_t)found->length) == NULL;
}

static unsigned char *copy_records(unsigned char *into, const unsigned char *at, const unsigned char *stop,
                                   long number, Py_ssize_t count, Py_ssize_t limit)
{
    struct frame frame;

    for (; count > 0 && take_record(at, stop, number, limit, &frame); count--, number++) {
        memcpy(into, frame.body, (size_t)frame.length);
        into += frame.length;
        *into++ = '\n';
        at = frame.after;
    }
    return into;
}

static PyObject *records(PyObject *module, PyObject *arguments)
{
    Py_buffer data;
    PyObject *wire = NULL;
    Py_ssize_t position, limit, count = 0, size = 0;
    long expected, last;
    const unsigned char *begin, *at, *stop;
    struct frame frame;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*nlln:records", &data, &position, &expected, &last, &limit))
        return NULL;
    if (position < 0 || position > data.len) {
        PyErr_SetString(PyExc_ValueError, "position is not within the data");
    } else {
        begin = at = (const unsigned char *)data.buf + position;
        stop = (const unsigned char *)data.buf + data.len;
        while (expected + count < last && take_record(at, stop, expected + (long)count, limit, &frame)) {
            size += frame.length + 1;
            at = frame.after;
            count++;
        }
        wire = PyBytes_FromStringAndSize(NULL, size);
        if (wire != NULL)
            copy_records((unsigned char *)PyBytes_AsString(wire), begin, stop, expected, count, limit);
        position = at - (const unsigned char *)data.buf;
    }
    PyBuffer_Release(&data);
    return wire == NULL ? NULL : Py_BuildValue("(Nnn)", wire, count, position);
}

static char *write_number(char *into, long number)
{
    char digits[LONGEST_ANSWER];
    int count = 0;

    do
        digits[count++] = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    while (count > 0)
        *into++ = digits[--count];
    return into;
}

static Py_ssize_t count_digits(long number)
{
    Py_ssize_t count = 1;

    while ((number /= 10) > 0)
        count++;
    return count;
}

static long next_number(long number)
{
    return number == HIGHEST_NUMBER ? 1 : number + 1;
}

static PyObject *answers(PyObject *module, PyObject *arguments)
{
    long number, frames, each, left;
    Py_ssize_t size = 0;
    PyObject *wire;
    char *into;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "ll:answers", &number, &frames))
        return NULL;
    if (number < 1 || number > HIGHEST_NUMBER || frames < 0 || frames > HIGHEST_NUMBER) {
        PyErr_SetString(PyExc_ValueError, "no such frames");
        return NULL;
    }
    for (each = number, left = frames; left > 0; left--, each = next_number(each))
        size += count_digits(each) + (Py_ssize_t)(sizeof OK - 1);
    wire = PyBytes_FromStringAndSize(NULL, size);
    if (wire == NULL)
        return NULL;
    into = PyBytes_AsString(wire);
    for (each = number, left = frames; left > 0; left--, each = next_number(each)) {
        into = write_number(into, each);
        memcpy(into, OK, sizeof OK - 1);
        into += sizeof OK - 1;
    }
    return wire;
}

static PyMethodDef methods[] = {
    {"records", records, METH_VARARGS, "records(data, position, expected, last, limit, /) -> (wire, count, end): see scan.py"},
    {"answers", answers, METH_VARARGS, "answers(number, frames, /) -> bytes: see scan.py"},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_relp", .m_size = 0, .m_methods = methods, .m_slots = slots,
};

PyMODINIT_FUNC PyInit__relp(void)
{
    return PyModuleDef_Init(&definition);
}
