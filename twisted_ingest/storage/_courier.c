/*
 * Jobs on their way from the reactor's thread to the writer's, which writes the ordinary ones without the interpreter's
 * lock: those whose buffers are there already, and that ask for nothing but to be written.
 *
 * Optional: `courier.py` says what is asked of it, and what is done without. The views of a job's buffers are taken when
 * it is put, and given back when it is taken out again, both by whoever holds the interpreter's lock. It is never waited
 * for with the mutex held.
 */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#define _FILE_OFFSET_BITS 64
#define _GNU_SOURCE
#include <Python.h>

#if defined(__linux__) && defined(__LP64__) /* elsewhere the module is empty: `courier.py` does without */

#include <linux/futex.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
#include "_look.h"

struct item {
    struct item *next;
    PyObject *job;
    long long size;
    Py_ssize_t count; /* of the views; -1 where the buffers are not there yet, or the job asks for more */
    Py_buffer views[]; /* as many as `count` */
};

struct chain {
    struct item *first, **end;
};

typedef struct {
    PyObject_HEAD
    pthread_mutex_t mutex;
    struct chain waiting, done;
    long odd;         /* of those that wait, how many cannot be written here */
    int is_asleep;    /* the writer's thread waits for a change: what it waits on, set and cleared with the mutex held */
    int is_awaited;   /* by somebody who wants the thread to come back: wake, close */
    int is_abandoned; /* nothing more is written */
    int is_rung;      /* somebody is told that there is something done, and has not come for it */
    int bell;
    double since; /* when the write under way began; 0 where none is */
} Courier;

/* ---- chains: the mutex is held, or nobody else knows them ---- */

static void empty(struct chain *chain)
{
    chain->first = NULL;
    chain->end = &chain->first;
}

static void append(struct chain *to, struct item *item)
{
    item->next = NULL;
    *to->end = item;
    to->end = &item->next;
}

static void move(struct chain *to, struct chain *from)
{
    if (from->first == NULL)
        return;
    *to->end = from->first;
    to->end = from->end;
    empty(from);
}

/* ---- items: the interpreter's lock is held ---- */

static void release(struct item *item)
{
    for (; item->count > 0; item->count--)
        PyBuffer_Release(&item->views[item->count - 1]);
    Py_DECREF(item->job);
    PyMem_Free(item);
}

static void release_all(struct chain *chain)
{
    struct item *item, *next;

    for (item = chain->first; item != NULL; item = next) {
        next = item->next;
        release(item);
    }
    empty(chain);
}

/* Give the jobs, and let go of everything else. */
static PyObject *jobs_of(struct chain *chain)
{
    PyObject *jobs = PyList_New(0);
    struct item *item;

    for (item = chain->first; jobs != NULL && item != NULL; item = item->next)
        if (PyList_Append(jobs, item->job) < 0)
            Py_CLEAR(jobs);
    release_all(chain);
    return jobs;
}

/* Make an item; its views are taken where it is one of those written here and all of them can be had. */
static struct item *item_of(PyObject *job, PyObject *buffers)
{
    Py_ssize_t wanted = buffers == Py_None ? 0 : PyList_Size(buffers), number;
    struct item *item;

    if (wanted < 0)
        return NULL;
    item = PyMem_Malloc(sizeof *item + (size_t)wanted * sizeof *item->views);
    if (item == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    item->job = Py_NewRef(job);
    item->size = 0;
    item->count = 0;
    for (number = 0; number < wanted; number++) {
        if (wanted > MOST_BUFFERS || PyObject_GetBuffer(PyList_GetItem(buffers, number), &item->views[number], PyBUF_SIMPLE) < 0)
            break;
        item->size += item->views[number].len;
        item->count++;
    }
    if (buffers == Py_None || number < wanted) {
        PyErr_Clear(); /* whoever writes it otherwise will see what is wrong with it */
        for (; item->count > 0; item->count--)
            PyBuffer_Release(&item->views[item->count - 1]);
        item->count = -1;
    }
    return item;
}

/* ---- the writer's thread, without the interpreter's lock ---- */

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* Wait until there is something to do, or as long as that is worth while (for ever where negative); mutex held. */
static void sleep_until_changed(Courier *self, double patience)
{
    double end = now() + patience, left;
    struct timespec time;

    while (self->waiting.first == NULL && !self->is_awaited && !self->is_abandoned) {
        left = patience < 0 ? 0 : end - now();
        if (left < 0 || patience == 0)
            break;
        time.tv_sec = (time_t)left;
        time.tv_nsec = (long)(1e9 * (left - (double)time.tv_sec));
        self->is_asleep = 1;
        pthread_mutex_unlock(&self->mutex);
        syscall(SYS_futex, &self->is_asleep, FUTEX_WAIT_PRIVATE, 1, patience < 0 ? NULL : &time, NULL, 0);
        pthread_mutex_lock(&self->mutex);
    }
    self->is_asleep = 0;
}

/* Let go of the mutex, and wake the writer's thread where it sleeps. */
static void unlock_and_wake(Courier *self)
{
    int was_asleep = self->is_asleep;

    self->is_asleep = 0; /* one that is about to sleep sees that, and does not */
    pthread_mutex_unlock(&self->mutex);
    if (was_asleep)
        syscall(SYS_futex, &self->is_asleep, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

struct file {
    int descriptor; /* -1: nothing may be written here */
    const char *path;
    long long limit; /* bytes that are written before they are reported; the last job may pass it */
    long long least; /* bytes it must have unless somebody has truncated it */
    long long written;
};

/* Take what is written next off those that wait: whole jobs, as much as one call takes. */
static int take(Courier *self, const struct file *file, struct chain *into, struct iovec *vectors, long long *size)
{
    struct item *item;
    Py_ssize_t number;
    int count = 0;

    *size = 0;
    while ((item = self->waiting.first) != NULL && *size < file->limit && count + item->count <= MOST_BUFFERS) {
        self->waiting.first = item->next;
        if (item->next == NULL)
            empty(&self->waiting);
        for (number = 0; number < item->count; number++)
            vectors[count++] = (struct iovec){item->views[number].buf, (size_t)item->views[number].len};
        *size += item->size;
        append(into, item);
    }
    return count;
}

/* Have somebody come for what is done, unless that is known already; mutex held, so that the bell is not closed meanwhile:
 * its number may be another file's then. An eventfd that cannot block is not waited for. */
static void ring(Courier *self)
{
    const unsigned long long one = 1;

    if (self->is_rung || self->bell < 0)
        return;
    self->is_rung = 1;
    while (write(self->bell, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

/* Whether all of it was written to a file that readers find, and that nobody has truncated. */
static int is_written(struct file *file, const struct iovec *vectors, int count, long long size, long long *taken)
{
    struct sight sight;

    *taken = count == 0 ? 0 : (long long)writev(file->descriptor, vectors, count);
    if (*taken < 0)
        *taken = 0; /* whoever tries again will see why */
    file->written += *taken;
    file->least += *taken;
    if (*taken < size)
        return 0;
    sight = look_at(file->descriptor, file->path);
    if (!sight.is_here || sight.size < file->least)
        return 0;
    file->least = sight.size;
    return 1;
}

/* Write what comes until something is not ordinary; gives in `begun` the jobs it has happened to, of which `taken` bytes
 * are written. */
static void work(Courier *self, struct file *file, double patience, struct chain *begun, long long *taken)
{
    struct iovec vectors[MOST_BUFFERS];
    long long size;
    int count, is_ordinary;

    pthread_mutex_lock(&self->mutex);
    for (;;) {
        sleep_until_changed(self, patience);
        if (self->waiting.first == NULL || self->odd || self->is_awaited || self->is_abandoned || file->descriptor < 0 || self->bell < 0)
            break;
        count = take(self, file, begun, vectors, &size);
        self->since = now();
        pthread_mutex_unlock(&self->mutex);
        is_ordinary = is_written(file, vectors, count, size, taken);
        pthread_mutex_lock(&self->mutex);
        self->since = 0;
        if (!is_ordinary)
            break;
        move(&self->done, begun);
        ring(self);
    }
    self->is_awaited = 0;
    pthread_mutex_unlock(&self->mutex);
}

/* ---- what Python sees ---- */

static PyObject *put(Courier *self, PyObject *arguments)
{
    PyObject *job, *buffers;
    struct item *item;

    if (!PyArg_ParseTuple(arguments, "OO:put", &job, &buffers) || (item = item_of(job, buffers)) == NULL)
        return NULL;
    pthread_mutex_lock(&self->mutex);
    append(&self->waiting, item);
    self->odd += item->count < 0;
    unlock_and_wake(self);
    Py_RETURN_NONE;
}

static PyObject *wake(Courier *self, PyObject *nothing)
{
    (void)nothing;
    pthread_mutex_lock(&self->mutex);
    self->is_awaited = 1;
    unlock_and_wake(self);
    Py_RETURN_NONE;
}

static PyObject *abandon(Courier *self, PyObject *nothing)
{
    struct chain waiting;

    (void)nothing;
    empty(&waiting);
    pthread_mutex_lock(&self->mutex);
    self->is_abandoned = self->is_awaited = 1;
    self->odd = 0;
    move(&waiting, &self->waiting);
    unlock_and_wake(self);
    release_all(&waiting);
    Py_RETURN_NONE;
}

static PyObject *run(Courier *self, PyObject *arguments)
{
    struct file file = {0, NULL, 0, 0, 0};
    struct chain begun, waiting;
    PyObject *begun_jobs, *waiting_jobs;
    long long taken = 0;
    double patience;

    if (!PyArg_ParseTuple(arguments, "iyLLd:run", &file.descriptor, &file.path, &file.limit, &file.least, &patience))
        return NULL;
    empty(&begun);
    empty(&waiting);
    Py_BEGIN_ALLOW_THREADS
    work(self, &file, patience, &begun, &taken);
    pthread_mutex_lock(&self->mutex);
    move(&waiting, &self->waiting);
    self->odd = 0;
    pthread_mutex_unlock(&self->mutex);
    Py_END_ALLOW_THREADS
    begun_jobs = jobs_of(&begun);
    waiting_jobs = jobs_of(&waiting);
    if (begun_jobs == NULL || waiting_jobs == NULL) {
        Py_XDECREF(begun_jobs);
        Py_XDECREF(waiting_jobs);
        return NULL;
    }
    return Py_BuildValue("(NLNLL)", begun_jobs, taken, waiting_jobs, file.written, file.least);
}

static PyObject *reap(Courier *self, PyObject *nothing)
{
    unsigned long long rings;
    struct chain done;

    (void)nothing;
    empty(&done);
    pthread_mutex_lock(&self->mutex);
    move(&done, &self->done);
    if (self->is_rung && read(self->bell, &rings, sizeof rings) == sizeof rings)
        self->is_rung = 0;
    pthread_mutex_unlock(&self->mutex);
    return jobs_of(&done);
}

static PyObject *under_way(Courier *self, PyObject *nothing)
{
    double since;

    (void)nothing;
    pthread_mutex_lock(&self->mutex);
    since = self->since;
    pthread_mutex_unlock(&self->mutex);
    return PyFloat_FromDouble(since == 0 ? 0 : now() - since);
}

static PyObject *is_empty(Courier *self, PyObject *nothing)
{
    int answer;

    (void)nothing;
    pthread_mutex_lock(&self->mutex);
    answer = self->waiting.first == NULL;
    pthread_mutex_unlock(&self->mutex);
    return PyBool_FromLong(answer);
}

static PyObject *open_bell(Courier *self, PyObject *nothing)
{
    (void)nothing;
    if (self->bell < 0)
        self->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return self->bell < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLong(self->bell);
}

static PyObject *close_bell(Courier *self, PyObject *nothing)
{
    (void)nothing;
    pthread_mutex_lock(&self->mutex);
    if (self->bell >= 0)
        close(self->bell);
    self->bell = -1;
    self->is_rung = 0;
    pthread_mutex_unlock(&self->mutex);
    Py_RETURN_NONE;
}

static PyObject *new_courier(PyTypeObject *type, PyObject *arguments, PyObject *named)
{
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Courier *self;

    (void)named;
    if (!PyArg_ParseTuple(arguments, ":Courier") || (self = (Courier *)allocate(type, 0)) == NULL)
        return NULL;
    pthread_mutex_init(&self->mutex, NULL);
    empty(&self->waiting);
    empty(&self->done);
    self->bell = -1;
    return (PyObject *)self;
}

static void dealloc(Courier *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    freefunc deallocate = (freefunc)PyType_GetSlot(type, Py_tp_free);

    release_all(&self->waiting);
    release_all(&self->done);
    if (self->bell >= 0)
        close(self->bell);
    pthread_mutex_destroy(&self->mutex);
    deallocate(self);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"put", (PyCFunction)put, METH_VARARGS, "put(job, buffers, /): see courier.py"},
    {"wake", (PyCFunction)wake, METH_NOARGS, "wake(): see courier.py"},
    {"abandon", (PyCFunction)abandon, METH_NOARGS, "abandon(): see courier.py"},
    {"run", (PyCFunction)run, METH_VARARGS, "run(descriptor, path, limit, least, patience, /): see courier.py"},
    {"reap", (PyCFunction)reap, METH_NOARGS, "reap() -> jobs: see courier.py"},
    {"under_way", (PyCFunction)under_way, METH_NOARGS, "under_way() -> seconds: see courier.py"},
    {"is_empty", (PyCFunction)is_empty, METH_NOARGS, "is_empty() -> bool: see courier.py"},
    {"open_bell", (PyCFunction)open_bell, METH_NOARGS, "open_bell() -> descriptor: see courier.py"},
    {"close_bell", (PyCFunction)close_bell, METH_NOARGS, "close_bell(): see courier.py"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot courier_slots[] = {
    {Py_tp_new, new_courier},
    {Py_tp_dealloc, dealloc},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec courier_spec = {
    .name = "twisted_ingest.storage._courier.Courier",
    .basicsize = sizeof(Courier),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = courier_slots,
};

static int fill(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&courier_spec);
    int failed = type == NULL || PyModule_AddType(module, (PyTypeObject *)type) < 0;

    Py_XDECREF(type);
    return failed ? -1 : 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, fill}, {0, NULL}};

#else
static PyModuleDef_Slot slots[] = {{0, NULL}};
#endif

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_courier", .m_size = 0, .m_slots = slots,
};

PyMODINIT_FUNC PyInit__courier(void)
{
    return PyModuleDef_Init(&definition);
}
