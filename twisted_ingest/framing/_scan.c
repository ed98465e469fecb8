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
#include "_scan.h"

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

typedef ptrdiff_t counting(struct bytes partial, const unsigned char *at, const unsigned char *stop, ptrdiff_t limit,
                           int evidence, const unsigned char **end);

static PyObject *found_lines(PyObject *arguments, counting *count_them)
{
    Py_buffer partial, data;
    PyObject *whole, *result;
    Py_ssize_t position, limit, count;
    const unsigned char *begin, *end;
    int evidence;

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
        count = count_them((struct bytes){partial.buf, partial.len}, begin, (const unsigned char *)data.buf + data.len,
                           limit, evidence, &end);
        result = answer(count ? joined(&partial, whole, begin, end - begin) : PyBytes_FromStringAndSize(NULL, 0),
                        count, end - (const unsigned char *)data.buf);
    }
    PyBuffer_Release(&data);
    PyBuffer_Release(&partial);
    return result;
}

static PyObject *lines(PyObject *module, PyObject *arguments)
{
    (void)module;
    return found_lines(arguments, count_lines);
}

/* As `lines` is on other machines; for the tests. */
static PyObject *portable_lines(PyObject *module, PyObject *arguments)
{
    (void)module;
    return found_lines(arguments, count_lines_portably);
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
    Py_ssize_t position, limit, count, size;
    const unsigned char *begin, *at, *stop;
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
    count = count_frames(begin, stop, limit, evidence, &at, &size);
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
    {"portable_lines", portable_lines, METH_VARARGS, "The same, without instructions of one machine."},
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
