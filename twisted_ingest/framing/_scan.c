/*
 * How far a chunk is ordinary: whole lines, or whole counted frames, that need no second look; and whether a block is.
 *
 * Optional. Lines and frames end at the first thing that is in any way odd, which with everything behind it is left to
 * the framers; they are complete without (`scan.py` says so in Python). All of this reads what Python owns, writes only
 * into objects it has made itself, and never past the length it has computed.
 */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <string.h>

enum { EVIDENCE = 17 }; /* "1234567 ", a BOM, "<123>": as much as shows how a line begins, and one more */

static const unsigned char *skip_bom(const unsigned char *at)
{
    return at[0] == 0xEF && at[1] == 0xBB && at[2] == 0xBF ? at + 3 : at;
}

static int is_digit(unsigned char byte)
{
    return byte >= '0' && byte <= '9';
}

/* Whether a priority stands here. What is read ends in LF, which ends every comparison in time. */
static int has_priority(const unsigned char *at)
{
    int digits = 1;

    if (at[0] != '<')
        return 0;
    while (digits <= 3 && is_digit(at[digits]))
        digits++;
    return digits > 1 && at[digits] == '>';
}

/* Whether a line, ended by LF, begins like a counted frame, or with what belongs to no record: see detect.py. */
static int is_odd(const unsigned char *at)
{
    int length = 0;

    switch (at[0]) {
    case ' ':
        while (length < 8 && at[length] == ' ')
            length++;
        return at[length] == '<';
    case 0xEF:
        return skip_bom(at) != at && at[3] == '<';
    case '1': case '2': case '3': case '4': case '5': case '6': case '7': case '8': case '9':
        while (length < 7 && is_digit(at[length]))
            length++;
        return at[length] == ' ' && has_priority(skip_bom(at + length + 1));
    default:
        return 0;
    }
}

/* The same for a line that begins in one buffer and goes on in another, at the end of which LF stands. */
static int is_odd_in_two(const Py_buffer *first, const unsigned char *second, Py_ssize_t second_length)
{
    unsigned char head[EVIDENCE + 1];
    Py_ssize_t length = first->len < EVIDENCE ? first->len : EVIDENCE;
    Py_ssize_t more = EVIDENCE - length < second_length ? EVIDENCE - length : second_length;

    memcpy(head, first->buf, (size_t)length);
    memcpy(head + length, second, (size_t)more);
    head[length + more] = '\n';
    return is_odd(head);
}

static int is_outside(const Py_buffer *data, Py_ssize_t position)
{
    if (position >= 0 && position <= data->len)
        return 0;
    PyErr_SetString(PyExc_ValueError, "position is not within the data");
    return 1;
}

/* Give the records, their number, and where in the data the next thing begins. */
static PyObject *answer(PyObject *wire, Py_ssize_t count, Py_ssize_t end)
{
    return wire == NULL ? NULL : Py_BuildValue("(Nnn)", wire, count, end);
}

static PyObject *joined(const Py_buffer *partial, PyObject *whole, const unsigned char *begin, Py_ssize_t length)
{
    PyObject *wire;
    char *into;

    if (partial->len == 0 && PyBytes_CheckExact(whole) && PyBytes_Size(whole) == length) {
        Py_INCREF(whole);
        return whole;
    }
    wire = PyBytes_FromStringAndSize(NULL, partial->len + length);
    if (wire == NULL)
        return NULL;
    into = PyBytes_AsString(wire);
    memcpy(into, partial->buf, (size_t)partial->len);
    memcpy(into + partial->len, begin, (size_t)length);
    return wire;
}

static int holds_nul(const void *at, Py_ssize_t length)
{
    return memchr(at, 0, (size_t)length) != NULL;
}

/* Count ordinary lines from `at` on; `*end` is where the first begins that is none, or has not come whole. */
static Py_ssize_t count_lines(const Py_buffer *partial, const unsigned char *at, const unsigned char *stop,
                              Py_ssize_t limit, int evidence, const unsigned char **end)
{
    Py_ssize_t count = 0, held = partial->len;
    const unsigned char *lf;

    if (evidence && holds_nul(partial->buf, held))
        stop = at;
    while (at < stop && (lf = memchr(at, '\n', (size_t)(stop - at))) != NULL) {
        unsigned char last = lf > at ? lf[-1] : held ? ((const unsigned char *)partial->buf)[held - 1] : '\n';

        if (last == '\n' || last == '\r' || held + (lf - at) > limit)
            break;
        if (evidence && (holds_nul(at, lf - at) || (held ? is_odd_in_two(partial, at, lf - at) : is_odd(at))))
            break;
        count++;
        held = 0;
        at = lf + 1;
    }
    *end = at;
    return count;
}

static PyObject *lines(PyObject *module, PyObject *arguments)
{
    Py_buffer partial, data;
    PyObject *whole, *result;
    Py_ssize_t position, limit, count;
    const unsigned char *begin, *end;
    int evidence;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*Onnp:lines", &partial, &whole, &position, &limit, &evidence))
        return NULL;
    if (PyObject_GetBuffer(whole, &data, PyBUF_SIMPLE) < 0) {
        PyBuffer_Release(&partial);
        return NULL;
    }
    if (is_outside(&data, position)) {
        result = NULL;
    } else {
        begin = (const unsigned char *)data.buf + position;
        count = count_lines(&partial, begin, (const unsigned char *)data.buf + data.len, limit, evidence, &end);
        result = answer(count ? joined(&partial, whole, begin, end - begin) : PyBytes_FromStringAndSize(NULL, 0),
                        count, end - (const unsigned char *)data.buf);
    }
    PyBuffer_Release(&data);
    PyBuffer_Release(&partial);
    return result;
}

struct frame {
    const unsigned char *body;
    Py_ssize_t length;          /* without what is stripped of its end */
    const unsigned char *after; /* where the next one begins */
};

/* The count before a frame, and the blank; NULL where none stands here whole. */
static const unsigned char *parse_count(const unsigned char *at, const unsigned char *stop, Py_ssize_t *count)
{
    const unsigned char *first = at;

    *count = 0;
    if (at >= stop || *at == '0')
        return NULL;
    while (at < stop && at - first < 7 && is_digit(*at))
        *count = *count * 10 + (*at++ - '0');
    return at > first && at < stop && *at == ' ' ? at + 1 : NULL;
}

/* Take one LF, CRLF or NUL off the end of a frame. */
static Py_ssize_t stripped(const unsigned char *body, Py_ssize_t length)
{
    if (body[length - 1] == '\n')
        return length - (length > 1 && body[length - 2] == '\r' ? 2 : 1);
    return body[length - 1] == 0 ? length - 1 : length;
}

/* Whether the header of another counted frame may stand within a frame, behind its own priority. */
static int holds_header(const unsigned char *body, Py_ssize_t length)
{
    const unsigned char *at = body + 1, *stop = body + length;

    while ((at = memchr(at, '<', (size_t)(stop - at))) != NULL) {
        if (at - body >= 2 && (at[-1] == ' ' || at[-1] == 0xBF))
            return 1;
        at++;
    }
    return 0;
}

/* Take apart the frame that stands here, if it has come whole, is not too long, and begins as it must. */
static int take_apart(const unsigned char *at, const unsigned char *stop, Py_ssize_t limit, int evidence,
                      struct frame *found)
{
    Py_ssize_t count;
    int digits = 1;

    if (!evidence && at < stop && *at == '\n')
        at++;
    at = parse_count(at, stop, &count);
    if (at == NULL || count > limit || count > stop - at || *at == 0xEF)
        return 0;
    if (evidence) {
        if (at >= stop || *at != '<')
            return 0;
        while (digits <= 3 && at + digits < stop && is_digit(at[digits]))
            digits++;
        if (digits == 1 || at + digits >= stop || at[digits] != '>')
            return 0;
    }
    found->body = at;
    found->length = stripped(at, count);
    found->after = at + count;
    return 1;
}

/* Where a byte comes next, looked for once and not for each frame. */
static const unsigned char *next_of(int byte, const unsigned char *last, const unsigned char *at,
                                    const unsigned char *stop)
{
    if (last >= at)
        return last;
    at = memchr(at, byte, (size_t)(stop - at));
    return at == NULL ? stop : at;
}

struct span {
    const unsigned char *begin, *end;
    const unsigned char *stop; /* of the data: a priority may be longer than the frame that it begins */
};

static PyObject *copied(struct span of, Py_ssize_t limit, int evidence, Py_ssize_t size)
{
    PyObject *wire = PyBytes_FromStringAndSize(NULL, size);
    struct frame frame;
    char *into;

    if (wire == NULL)
        return NULL;
    into = PyBytes_AsString(wire);
    for (; of.begin < of.end && take_apart(of.begin, of.stop, limit, evidence, &frame); of.begin = frame.after) {
        memcpy(into, frame.body, (size_t)frame.length);
        into += frame.length;
        *into++ = '\n';
    }
    return wire;
}

/* Ordinary are frames that are not empty and one line; with evidence also without NUL, and without another's header. */
static PyObject *frames(PyObject *module, PyObject *arguments)
{
    Py_buffer data;
    PyObject *wire;
    Py_ssize_t position, limit, count = 0, size = 0;
    const unsigned char *begin, *at, *stop, *lf, *nul;
    struct frame frame;
    int evidence;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*nnp:frames", &data, &position, &limit, &evidence))
        return NULL;
    if (is_outside(&data, position)) {
        PyBuffer_Release(&data);
        return NULL;
    }
    begin = (const unsigned char *)data.buf + position;
    stop = (const unsigned char *)data.buf + data.len;
    lf = nul = NULL;
    for (at = begin; take_apart(at, stop, limit, evidence, &frame) && frame.length > 0; at = frame.after) {
        lf = next_of('\n', lf, frame.body, stop);
        if (lf < frame.body + frame.length)
            break;
        if (evidence) {
            nul = next_of(0, nul, frame.body, stop);
            if (nul < frame.body + frame.length || holds_header(frame.body, frame.length))
                break;
        }
        size += frame.length + 1;
        count++;
    }
    wire = copied((struct span){begin, at, stop}, limit, evidence, size);
    position = at - (const unsigned char *)data.buf;
    PyBuffer_Release(&data);
    return answer(wire, count, position);
}

static PyObject *holds_control(PyObject *module, PyObject *arguments)
{
    Py_buffer data, exception;
    const unsigned char *at;
    Py_ssize_t place;
    unsigned char but, found = 0;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*y*:holds_control", &data, &exception))
        return NULL;
    at = data.buf;
    but = exception.len ? *(const unsigned char *)exception.buf : ' ';
    for (place = 0; place < data.len; place++)
        found |= (unsigned char)((at[place] < 0x20) & (at[place] != but)); /* no branch: made into vectors */
    PyBuffer_Release(&exception);
    PyBuffer_Release(&data);
    return PyBool_FromLong(found);
}

static PyMethodDef methods[] = {
    {"lines", lines, METH_VARARGS, "lines(partial, data, position, limit, evidence, /) -> (wire, count, end): see scan.py"},
    {"frames", frames, METH_VARARGS, "frames(data, position, limit, evidence, /) -> (wire, count, end): see scan.py"},
    {"holds_control", holds_control, METH_VARARGS, "holds_control(data, exception, /) -> bool: see scan.py"},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_scan", .m_size = 0, .m_methods = methods, .m_slots = slots,
};

PyMODINIT_FUNC PyInit__scan(void)
{
    return PyModuleDef_Init(&definition);
}
