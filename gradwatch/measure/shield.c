/* A function made harmless, as gradwatch.shield has it in Python: the same, without a frame of its own.

   Ten such calls lie in a step of a small network, and each costs as much as thirty of Python's instructions. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <structmember.h>

#include "shield.h"

#ifdef _WIN32
#include <windows.h>
static double clock_now(void)
{
    LARGE_INTEGER now, frequency;
    QueryPerformanceCounter(&now);
    QueryPerformanceFrequency(&frequency);
    return (double)now.QuadPart / (double)frequency.QuadPart;
}
#else
#include <time.h>
static double clock_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
#endif

/* How often this process is a fork of one that had gradwatch. */
static long forks;

typedef struct {
    PyObject_HEAD
    PyObject *caught;       /* takes the function that raised and what it raised */
    PyObject *stands_aside; /* asked at each call whether nothing is to run; NULL where that cannot be */
    double seconds;
    long forks; /* of the process that it was made in */
    int inside;
} Shield;

/* Calls the function with what it was given, in an array. */
static PyObject *pass_on(PyObject *function, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    Py_ssize_t named = names ? PyTuple_Size(names) : 0;
    if (!named && count <= 4)
        /* Ends with the first NULL. */
        return PyObject_CallFunctionObjArgs(function, count > 0 ? args[0] : NULL, count > 1 ? args[1] : NULL,
                                            count > 2 ? args[2] : NULL, count > 3 ? args[3] : NULL, NULL);
    PyObject *given = PyTuple_New(count), *by_name = named ? PyDict_New() : NULL, *result = NULL;
    int failed = !given || (named && !by_name);
    for (Py_ssize_t i = 0; i < count && !failed; i++) {
        Py_INCREF(args[i]);
        failed = PyTuple_SetItem(given, i, args[i]) < 0;
    }
    for (Py_ssize_t i = 0; i < named && !failed; i++)
        failed = PyDict_SetItem(by_name, PyTuple_GetItem(names, i), args[count + i]) < 0;
    if (!failed)
        result = PyObject_Call(function, given, by_name);
    Py_XDECREF(given);
    Py_XDECREF(by_name);
    return result;
}

/* Hands what a function has raised to Python; None. An interrupt from the keyboard is the user's, and goes on. */
static PyObject *keep(Shield *shield, PyObject *function)
{
    PyObject *type, *value, *trace;
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return NULL;
    PyErr_Fetch(&type, &value, &trace);
    PyErr_NormalizeException(&type, &value, &trace);
    if (trace)
        PyException_SetTraceback(value, trace);
    PyObject *told = PyObject_CallFunctionObjArgs(shield->caught, function, value, NULL);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(trace);
    return told;
}

static PyObject *call(PyObject *both, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    Shield *shield = (Shield *)PyTuple_GetItem(both, 0);
    PyObject *function = PyTuple_GetItem(both, 1);
    if (shield->forks != forks)
        Py_RETURN_NONE;
    if (shield->stands_aside) {
        PyObject *aside = PyObject_CallFunctionObjArgs(shield->stands_aside, NULL);
        int is_aside = aside ? PyObject_IsTrue(aside) : -1;
        Py_XDECREF(aside);
        if (is_aside)
            return is_aside > 0 ? Py_NewRef(Py_None) : NULL;
    }
    int nested = shield->inside;
    shield->inside = 1;
    double began = clock_now();
    PyObject *result = pass_on(function, args, count, names);
    if (!result)
        result = keep(shield, function);
    /* Only whoever came in first takes it back: what another thread saw meanwhile is not put back. */
    if (!nested) {
        shield->inside = 0;
        shield->seconds += clock_now() - began;
    }
    return result;
}

static PyMethodDef shielded = {"shielded", (PyCFunction)(void (*)(void))call, METH_FASTCALL | METH_KEYWORDS, NULL};

static PyObject *around(PyObject *self, PyObject *function)
{
    PyObject *both = PyTuple_Pack(2, self, function);
    PyObject *made = both ? PyCFunction_NewEx(&shielded, both, NULL) : NULL;
    Py_XDECREF(both);
    return made;
}

static int begin(PyObject *self, PyObject *args, PyObject *names)
{
    Shield *shield = (Shield *)self;
    PyObject *caught, *aside;
    (void)names;
    if (!PyArg_ParseTuple(args, "OO", &caught, &aside))
        return -1;
    shield->caught = Py_NewRef(caught);
    shield->stands_aside = aside == Py_None ? NULL : Py_NewRef(aside);
    shield->forks = forks;
    return 0;
}

static int visit_all(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(((Shield *)self)->caught);
    Py_VISIT(((Shield *)self)->stands_aside);
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static int clear(PyObject *self)
{
    Py_CLEAR(((Shield *)self)->caught);
    Py_CLEAR(((Shield *)self)->stands_aside);
    return 0;
}

static void end(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    clear(self);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyMemberDef members[] = {{"seconds", T_DOUBLE, offsetof(Shield, seconds), READONLY, NULL}, {NULL}};
static PyMethodDef methods[] = {{"around", around, METH_O, "See gradwatch.shield."}, {NULL, NULL, 0, NULL}};
static PyType_Slot slots[] = {{Py_tp_init, begin},     {Py_tp_new, PyType_GenericNew}, {Py_tp_dealloc, end},
                              {Py_tp_traverse, visit_all}, {Py_tp_clear, clear},       {Py_tp_methods, methods},
                              {Py_tp_members, members},    {0, NULL}};
static PyType_Spec spec = {"gradwatch.measure._native.Shield", sizeof(Shield), 0,
                           Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, slots};

PyObject *shield_type(void)
{
    return PyType_FromSpec(&spec);
}

PyObject *forked(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    forks++;
    Py_RETURN_NONE;
}
