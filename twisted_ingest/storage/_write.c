/*
 * Appending to an open file, syncing it, and the look where it is then: in one call each, for which the interpreter's
 * lock is let go of once.
 *
 * Optional: `calls.py` is the same in Python. What is written is Python's, and held for the length of the call; nothing
 * is copied, and nothing is kept.
 */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#define _FILE_OFFSET_BITS 64
#include <Python.h>
#include <errno.h>
#include <sys/uio.h>
#include <unistd.h>
#include "_look.h"

static PyObject *described(struct sight sight)
{
    return Py_BuildValue("(LLO)", sight.size, sight.links, sight.is_here ? Py_True : Py_False);
}

/* ---- what is written ---- */

struct gathered {
    Py_ssize_t count;
    Py_ssize_t size;
    Py_buffer *views;
    struct iovec *vectors;
};

static void let_go(struct gathered *of)
{
    Py_ssize_t number;

    for (number = 0; number < of->count; number++)
        PyBuffer_Release(&of->views[number]);
    PyMem_Free(of->views);
    PyMem_Free(of->vectors);
}

static int hold(struct gathered *into, PyObject *buffers, Py_ssize_t number)
{
    PyObject *buffer = PySequence_GetItem(buffers, number);
    Py_buffer *view = &into->views[number];
    int failed;

    if (buffer == NULL)
        return -1;
    failed = PyObject_GetBuffer(buffer, view, PyBUF_SIMPLE);
    Py_DECREF(buffer); /* the view holds it */
    if (failed)
        return -1;
    into->vectors[number] = (struct iovec){view->buf, (size_t)view->len};
    into->size += view->len;
    into->count++;
    return 0;
}

static int gather(struct gathered *into, PyObject *buffers)
{
    Py_ssize_t wanted = PySequence_Size(buffers), number;

    *into = (struct gathered){0, 0, NULL, NULL};
    if (wanted < 0)
        return -1;
    if (wanted > MOST_BUFFERS) {
        PyErr_Format(PyExc_ValueError, "%zd buffers; one call takes %d", wanted, MOST_BUFFERS);
        return -1;
    }
    into->views = PyMem_Malloc((size_t)(wanted ? wanted : 1) * sizeof *into->views);
    into->vectors = PyMem_Malloc((size_t)(wanted ? wanted : 1) * sizeof *into->vectors);
    if (into->views == NULL || into->vectors == NULL) {
        let_go(into);
        PyErr_NoMemory();
        return -1;
    }
    for (number = 0; number < wanted; number++)
        if (hold(into, buffers, number) < 0) {
            let_go(into);
            return -1;
        }
    return 0;
}

/* ---- the calls ---- */

static PyObject *append(PyObject *module, PyObject *arguments)
{
    struct gathered what;
    struct sight sight = {-1, 0, 0};
    PyObject *buffers;
    const char *path;
    Py_ssize_t taken;
    int descriptor, failure;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "iOy:append", &descriptor, &buffers, &path) || gather(&what, buffers) < 0)
        return NULL;
    do {
        Py_BEGIN_ALLOW_THREADS
        taken = writev(descriptor, what.vectors, (int)what.count);
        failure = errno;
        if (taken == what.size)
            sight = look_at(descriptor, path);
        Py_END_ALLOW_THREADS
    } while (taken < 0 && failure == EINTR && PyErr_CheckSignals() == 0);
    let_go(&what);
    if (PyErr_Occurred())
        return NULL;
    if (taken < 0) {
        errno = failure;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    if (taken < what.size)
        return Py_BuildValue("(nO)", taken, Py_None);
    return Py_BuildValue("(nN)", taken, described(sight));
}

static PyObject *look(PyObject *module, PyObject *arguments)
{
    struct sight sight;
    const char *path;
    int descriptor;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "iy:look", &descriptor, &path))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    sight = look_at(descriptor, path);
    Py_END_ALLOW_THREADS
    return described(sight);
}

static PyMethodDef methods[] = {
    {"append", append, METH_VARARGS, "append(descriptor, buffers, path, /) -> (taken, sight): see calls.py"},
    {"look", look, METH_VARARGS, "look(descriptor, path, /) -> sight: see calls.py"},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_write", .m_size = 0, .m_methods = methods, .m_slots = slots,
};

PyMODINIT_FUNC PyInit__write(void)
{
    return PyModuleDef_Init(&definition);
}
