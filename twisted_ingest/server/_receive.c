/*
 * Whole reads: what is ready on many sockets is received, and looked through, in one call without the interpreter's lock.
 *
 * Optional, as the scanner is (`framing/_scan.c`): reading is complete without. What is received lies behind the unfinished
 * record of its connection, in memory of the caller's that nobody else writes meanwhile; past its end nothing is written.
 */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <errno.h>
#include <sys/socket.h>
#include "../framing/_scan.h"

enum look { NOTHING, LINES, LINES_OF_MIXED, FRAMES, FRAMES_OF_MIXED }; /* `Look` in scan.py */

enum { MOST = 256 }; /* requests of one call; `MOST_AT_ONCE` in whole.py */

struct request {
    int socket;
    int look;
    Py_buffer partial; /* the unfinished record */
    Py_ssize_t room;   /* as many bytes may be received */
    Py_ssize_t limit;  /* of a record */
    /* What came of it. */
    unsigned char *begin; /* the unfinished record's place, where anything ordinary was found */
    Py_ssize_t got;       /* bytes, 0 at the end of the stream, or -errno */
    Py_ssize_t count;     /* of ordinary records */
    const unsigned char *end; /* of them */
};

static int is_of_mixed(int look)
{
    return look == LINES_OF_MIXED || look == FRAMES_OF_MIXED;
}

/* How many bytes are to come of the counted frame begun in `partial`; 0 where that is not told yet, -1 where it is odd. */
static Py_ssize_t missing_of(struct bytes partial)
{
    const unsigned char *stop = partial.at + partial.length, *body;
    ptrdiff_t count;

    body = parse_count(partial.at + (partial.length && *partial.at == '\n'), stop, &count);
    if (body == NULL || count <= stop - body)
        return partial.length < EVIDENCE ? 0 : -1;
    return count - (stop - body);
}

/* Look through what was received behind where the unfinished record belongs, which is put there once it is ended. */
static void look_through(struct request *of)
{
    unsigned char *received = of->begin + of->partial.len;
    const unsigned char *stop = received + of->got;
    struct bytes partial = {of->partial.buf, of->partial.len};
    ptrdiff_t size, missing;

    if (of->look == LINES || of->look == LINES_OF_MIXED) {
        /* An unfinished record that stays so is not looked at: one that comes byte by byte would be at each. */
        if (memchr(received, '\n', (size_t)of->got) != NULL)
            of->count = count_lines(partial, received, stop, of->limit, is_of_mixed(of->look), &of->end);
        if (of->count)
            memcpy(of->begin, partial.at, (size_t)partial.length);
    } else if (of->look != NOTHING && (missing = missing_of(partial)) >= 0 && missing <= of->got) {
        memcpy(of->begin, partial.at, (size_t)partial.length);
        of->count = count_frames(of->begin, stop, of->limit, is_of_mixed(of->look), &of->end, &size);
    }
}

/* Receive for one after the other while there is room; give for how many that was. Runs without the lock. */
static Py_ssize_t receive_all(struct request *of, Py_ssize_t number, unsigned char *at, unsigned char *stop, Py_ssize_t least)
{
    Py_ssize_t index, room;

    for (index = 0; index < number; index++, of++) {
        room = stop - at - of->partial.len;
        if (room < least)
            break;
        of->begin = at;
        of->got = recv(of->socket, at + of->partial.len, (size_t)(of->room < room ? of->room : room), MSG_DONTWAIT);
        if (of->got < 0)
            of->got = -(Py_ssize_t)errno;
        if (of->got <= 0)
            continue;
        look_through(of);
        at += of->partial.len + of->got;
    }
    return index;
}

static PyObject *as_bytes(const unsigned char *at, const unsigned char *stop)
{
    return PyBytes_FromStringAndSize((const char *)at, stop - at);
}

/* Tell what came of a request; small lines are copied, larger ones and frames told by where they are. */
static PyObject *told(const struct request *of, const unsigned char *memory, Py_ssize_t views_from)
{
    const unsigned char *received = of->begin + of->partial.len, *stop = received + of->got;
    Py_ssize_t size = of->end - of->begin;
    PyObject *wire, *rest;

    if (of->got <= 0)
        return PyLong_FromSsize_t(of->got);
    if (of->count == 0 || (size < views_from && of->look >= FRAMES))
        return Py_BuildValue("(n(y#nn)N)", of->got, "", (Py_ssize_t)0, (Py_ssize_t)0, (Py_ssize_t)0, as_bytes(received, stop));
    wire = size < views_from ? as_bytes(of->begin, of->end) : PyLong_FromSsize_t(of->begin - memory);
    rest = wire == NULL ? NULL : as_bytes(of->end, stop);
    if (rest == NULL) {
        Py_XDECREF(wire);
        return NULL;
    }
    return Py_BuildValue("(n(Nnn)N)", of->got, wire, of->count, size, rest);
}

static PyObject *tell(const struct request *of, Py_ssize_t number, const unsigned char *memory, Py_ssize_t views_from)
{
    PyObject *answers = PyList_New(number), *answer;
    Py_ssize_t index;

    for (index = 0; answers != NULL && index < number; index++) {
        answer = told(of + index, memory, views_from);
        if (answer == NULL || PyList_SetItem(answers, index, answer) < 0)
            Py_CLEAR(answers);
    }
    return answers;
}

/* Read the requests; give how many hold a buffer now, or -1 less that many where one is none. */
static Py_ssize_t read_requests(PyObject *list, struct request *of)
{
    Py_ssize_t index, number = PyList_Size(list);

    for (index = 0; index < number; index++, of++) {
        PyObject *each = PyList_GetItem(list, index);

        memset(of, 0, sizeof *of);
        if (!PyTuple_Check(each)) {
            PyErr_SetString(PyExc_TypeError, "a request is no tuple");
            return -1 - index;
        }
        if (!PyArg_ParseTuple(each, "iy*nni", &of->socket, &of->partial, &of->room, &of->limit, &of->look))
            return -1 - index;
        if (of->room <= 0 || of->look < NOTHING || of->look > FRAMES_OF_MIXED) {
            PyErr_SetString(PyExc_ValueError, "a request has no room, or an unknown look");
            return -2 - index;
        }
    }
    return number;
}

static PyObject *receive(PyObject *module, PyObject *arguments)
{
    Py_buffer memory;
    PyObject *list, *result = NULL;
    Py_ssize_t begin, least, views_from, number, held, done;
    struct request requests[MOST];

    (void)module;
    if (!PyArg_ParseTuple(arguments, "w*nO!nn:receive", &memory, &begin, &PyList_Type, &list, &least, &views_from))
        return NULL;
    if (begin < 0 || begin > memory.len || least < 1 || PyList_Size(list) > MOST) {
        PyErr_SetString(PyExc_ValueError, "begin is not within the memory, or least is no size, or too many are asked for");
    } else {
        number = read_requests(list, requests);
        held = number < 0 ? -1 - number : number;
        if (number >= 0) {
            unsigned char *at = (unsigned char *)memory.buf + begin, *stop = (unsigned char *)memory.buf + memory.len;

            Py_BEGIN_ALLOW_THREADS
            done = receive_all(requests, number, at, stop, least);
            Py_END_ALLOW_THREADS
            result = tell(requests, done, memory.buf, views_from);
        }
        while (held--)
            PyBuffer_Release(&requests[held].partial);
    }
    PyBuffer_Release(&memory);
    return result;
}

static PyObject *compact(PyObject *module, PyObject *arguments)
{
    Py_buffer memory;
    Py_ssize_t begin, end, stop, limit;
    unsigned char *from, *into;
    struct frame frame;
    int evidence;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "w*nnnnp:compact", &memory, &begin, &end, &stop, &limit, &evidence))
        return NULL;
    if (begin < 0 || begin > end || end > stop || stop > memory.len) {
        PyErr_SetString(PyExc_ValueError, "the frames are not within the memory");
        PyBuffer_Release(&memory);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    from = into = (unsigned char *)memory.buf + begin;
    while (from < (unsigned char *)memory.buf + end
           && take_apart(from, (unsigned char *)memory.buf + stop, limit, evidence, &frame)) {
        memmove(into, frame.body, (size_t)frame.length); /* a count and a blank are longer than the LF */
        into += frame.length;
        *into++ = '\n';
        from = (unsigned char *)frame.after;
    }
    Py_END_ALLOW_THREADS
    end = into - (unsigned char *)memory.buf;
    PyBuffer_Release(&memory);
    return PyLong_FromSsize_t(end - begin);
}

static PyObject *ordinary(PyObject *module, PyObject *arguments)
{
    Py_buffer partial, data;
    Py_ssize_t limit, missing;
    const unsigned char *begin, *end, *stop;
    ptrdiff_t size;
    int look;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*y*ni:ordinary", &partial, &data, &limit, &look))
        return NULL;
    begin = end = data.buf;
    stop = begin + data.len;
    Py_BEGIN_ALLOW_THREADS
    if (look == LINES || look == LINES_OF_MIXED) {
        (void)count_lines((struct bytes){partial.buf, partial.len}, begin, stop, limit, is_of_mixed(look), &end);
    } else if (look != NOTHING) {
        missing = missing_of((struct bytes){partial.buf, partial.len});
        if (missing >= 0 && missing <= data.len && (missing || partial.len == 0))
            (void)count_frames(begin + missing, stop, limit, is_of_mixed(look), &end, &size);
    }
    Py_END_ALLOW_THREADS
    limit = end - begin;
    PyBuffer_Release(&data);
    PyBuffer_Release(&partial);
    return PyLong_FromSsize_t(limit);
}

static PyMethodDef methods[] = {
    {"receive", receive, METH_VARARGS, "receive(memory, begin, requests, least, views_from, /) -> list: see whole.py"},
    {"compact", compact, METH_VARARGS, "compact(memory, begin, end, stop, limit, evidence, /) -> int: see whole.py"},
    {"ordinary", ordinary, METH_VARARGS, "ordinary(partial, data, limit, look, /) -> int: see whole.py"},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_receive", .m_size = 0, .m_methods = methods, .m_slots = slots,
};

PyMODINIT_FUNC PyInit__receive(void)
{
    return PyModuleDef_Init(&definition);
}
