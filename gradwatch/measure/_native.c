/* Gradients as Python sees them: which there are, and the norms of those that lie in plain CPU memory.

   Torch is asked through its Python objects, and through DLPack where it has that for C, so that no ABI of its own
   matters. The arithmetic is in sums.c.

   Why another thread can't make a reading crash. Memory is read while the interpreter's lock is held, so no Python
   code runs meanwhile: none can drop a gradient, give its parameter another, or shrink its storage. What other
   threads began before, in torch's own code and without the lock, may still be under way. `set_` may put another
   storage under the gradient at any instant, which is why a reading holds a reference to the storage and stays between
   its two ends: all that is read is memory that the reference keeps. A long reading takes turns with other threads,
   see turns.py, and looks at the gradient anew after each; where anything is different the sum is dropped and the
   gradient is read once more from its beginning, this time without turns, so that nothing comes between.

   One thing is left, against which torch offers nothing and its own operations have no defence either: a `resize_`
   under way in another thread that makes this very storage grow, and frees the old memory without the lock. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* As in pure.py. */
#define FAINT 1e-7

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "dlpack.h"
#include "shield.h"
#include "sums.h"

/* Numbers read between two turns: some 0.3 ms. */
#define PIECE ((size_t)1 << 20)

/* Outside these a sum of squares of float64 may have lost digits, or left the range (Blue, ACM TOMS 4, 1978). */
#define SMALLEST_SAFE_SUM 1e-280
#define UP 0x1p600
#define DOWN 0x1p-600

#define DTYPES 6

/* Whatever is asked of every gradient is asked of the C function behind the attribute, where there is one: to search
   for it by name, and to pack arguments for it, costs as much as the answer. It is for exact types alone. */

typedef struct {
    PyObject *name, *descriptor;
    descrgetfunc get; /* NULL: by name */
} Value;

typedef struct {
    PyObject *method;
    PyCFunction function; /* NULL: the method is called as from Python */
} Method;

static struct {
    PyTypeObject *tensor, *parameter, *storage_type;
    PyObject *version_of, *take_turns;
    PyObject *is_cpu, *dtype, *params;          /* names */
    PyObject *is_contiguous, *numel, *data_ptr; /* methods */
    Value grad, version;
    Method storage, nbytes, storage_data_ptr;
    DLTensorOfObject exchange; /* NULL where torch has it not */
    struct {
        PyObject *object;
        DLDataType dlpack;
        Number number;
        size_t numbers; /* two in a complex element */
    } dtypes[DTYPES];
} torch;

static const Way *way;

static int is_plain(PyObject *tensor)
{
    return Py_TYPE(tensor) == torch.tensor || Py_TYPE(tensor) == torch.parameter;
}

static PyObject *value_of(const Value *value, PyObject *tensor)
{
    if (value->get && is_plain(tensor))
        return value->get(value->descriptor, tensor, (PyObject *)Py_TYPE(tensor));
    return PyObject_GetAttr(tensor, value->name);
}

/* The answer of a method without arguments; `is_own` is whether the object is of the method's own type. */
static PyObject *answer_of(const Method *method, PyObject *self, int is_own)
{
    if (method->function && is_own)
        return method->function(self, NULL);
    return PyObject_CallFunctionObjArgs(method->method, self, NULL);
}

/* What has changed since the last look. */

enum { ABSENT, SAME, ONCE, CHANGED, NEW };

/* A gradient's version; -1 with an exception set where it can't be had. */
static int version_of(PyObject *gradient, int64_t *version)
{
    PyObject *found = NULL;
    if (Py_TYPE(gradient) == torch.tensor) {
        found = value_of(&torch.version, gradient);
        if (!found)
            PyErr_Clear();
    }
    if (!found)
        found = PyObject_CallFunctionObjArgs(torch.version_of, gradient, NULL);
    if (!found)
        return -1;
    *version = PyLong_AsLongLong(found);
    Py_DECREF(found);
    return *version == -1 && PyErr_Occurred() ? -1 : 0;
}

static char code_of(int64_t id, int64_t version, int64_t id_before, int64_t version_before)
{
    if (!id)
        return ABSENT;
    if (id != id_before)
        return NEW;
    return version == version_before ? SAME : version == version_before + 1 ? ONCE : CHANGED;
}

/* A new reference to an item of a list that others may change; NULL, with an exception set, where it is too short. */
static PyObject *item_of(PyObject *list, Py_ssize_t place)
{
    PyObject *item = PyList_GetItem(list, place);
    Py_XINCREF(item);
    return item;
}

/* The address of so many int64 or float64 in a bytearray; NULL, with an exception set, where it is too short. */
static void *numbers_in(PyObject *array, Py_ssize_t count)
{
    if (PyByteArray_Size(array) / 8 < count) {
        PyErr_SetString(PyExc_IndexError, "the bytearray is too short");
        return NULL;
    }
    return PyByteArray_AsString(array);
}

/* A new reference to a parameter's gradient, or to None. */
static PyObject *gradient_of(PyObject *parameters, Py_ssize_t place)
{
    PyObject *parameter = item_of(parameters, place);
    if (!parameter || parameter == Py_None)
        return parameter;
    PyObject *gradient = value_of(&torch.grad, parameter);
    Py_DECREF(parameter);
    return gradient;
}

static int look_at(PyObject *gradient, Py_ssize_t place, Py_ssize_t count, PyObject *state, char *code)
{
    int64_t id = 0, version = -1;
    if (gradient != Py_None) {
        id = (int64_t)(intptr_t)gradient;
        if (version_of(gradient, &version) < 0)
            return -1;
    }
    /* Asked for only now: what was called above may have moved it. */
    int64_t *seen = numbers_in(state, 2 * count);
    if (!seen)
        return -1;
    *code = code_of(id, version, seen[place], seen[count + place]);
    seen[place] = id;
    seen[count + place] = version;
    return 0;
}

static PyObject *look(PyObject *module, PyObject *args)
{
    PyObject *parameters, *state;
    (void)module;
    if (!PyArg_ParseTuple(args, "O!O!", &PyList_Type, &parameters, &PyByteArray_Type, &state))
        return NULL;
    Py_ssize_t count = PyList_Size(parameters);
    PyObject *gradients = PyList_New(count), *codes = PyBytes_FromStringAndSize(NULL, count);
    int failed = !gradients || !codes;
    char *code = failed ? NULL : PyBytes_AsString(codes);
    for (Py_ssize_t place = 0; place < count && !failed; place++) {
        PyObject *gradient = gradient_of(parameters, place);
        failed = !gradient || look_at(gradient, place, count, state, code + place) < 0;
        if (gradient)
            PyList_SetItem(gradients, place, gradient); /* takes the reference */
    }
    PyObject *both = failed ? NULL : PyTuple_Pack(2, gradients, codes);
    Py_XDECREF(gradients);
    Py_XDECREF(codes);
    return both;
}

static PyObject *unchanged(PyObject *module, PyObject *args)
{
    PyObject *parameters, *state, *places;
    (void)module;
    if (!PyArg_ParseTuple(args, "O!O!O!", &PyList_Type, &parameters, &PyByteArray_Type, &state, &PyTuple_Type, &places))
        return NULL;
    Py_ssize_t count = PyList_Size(parameters);
    int same = 1;
    for (Py_ssize_t at = 0; at < PyTuple_Size(places) && same; at++) {
        Py_ssize_t place = PyLong_AsSsize_t(PyTuple_GetItem(places, at));
        PyObject *gradient = gradient_of(parameters, place);
        int64_t version = -1;
        int failed = !gradient || (gradient != Py_None && version_of(gradient, &version) < 0);
        const int64_t *seen = failed ? NULL : numbers_in(state, 2 * count);
        int64_t id = gradient == Py_None ? 0 : (int64_t)(intptr_t)gradient;
        same = seen && id == seen[place] && version == seen[count + place];
        Py_XDECREF(gradient);
        if (!seen)
            return NULL;
    }
    return PyBool_FromLong(same);
}

static PyObject *as_list(PyObject *objects)
{
    return PyList_Check(objects) ? Py_NewRef(objects) : PySequence_List(objects);
}

/* Whether a list, or what can be made one, holds the next so many objects of a row of addresses. */
static int are_next(PyObject *objects, const char **at, Py_ssize_t *left)
{
    PyObject *list = as_list(objects);
    if (!list)
        return -1;
    Py_ssize_t count = PyList_Size(list);
    int same = count <= *left;
    for (Py_ssize_t place = 0; place < count && same; place++, *at += 8) {
        int64_t address;
        memcpy(&address, *at, sizeof address);
        same = address == (int64_t)(intptr_t)PyList_GetItem(list, place);
    }
    *left -= count;
    Py_DECREF(list);
    return same;
}

static PyObject *holds(PyObject *module, PyObject *args)
{
    PyObject *groups, *addresses;
    (void)module;
    if (!PyArg_ParseTuple(args, "OS", &groups, &addresses) || !(groups = as_list(groups)))
        return NULL;
    const char *at = PyBytes_AsString(addresses);
    Py_ssize_t left = PyBytes_Size(addresses) / 8;
    int same = 1;
    for (Py_ssize_t place = 0; place < PyList_Size(groups) && same > 0; place++) {
        PyObject *group = item_of(groups, place), *held = group ? PyObject_GetItem(group, torch.params) : NULL;
        same = held ? are_next(held, &at, &left) : -1;
        Py_XDECREF(held);
        Py_XDECREF(group);
    }
    Py_DECREF(groups);
    return same < 0 ? NULL : PyBool_FromLong(same && !left);
}

/* Where a gradient's numbers lie. */

typedef struct {
    PyObject *storage; /* keeps the memory; NULL where there are no numbers */
    const char *address;
    Number number;
    size_t count;
} Memory;

/* Takes an answer as a number; 0, and no exception, where it is none. */
static int take_number(PyObject *answer, size_t *number)
{
    if (answer) {
        *number = PyLong_AsSize_t(answer);
        Py_DECREF(answer);
    }
    if (!PyErr_Occurred())
        return 1;
    PyErr_Clear();
    return 0;
}

/* Whether the answer is True. One that failed is not, and its exception is forgotten. */
static int is_true(PyObject *answer)
{
    if (!answer)
        PyErr_Clear();
    Py_XDECREF(answer);
    return answer == Py_True;
}

/* What a gradient says of itself. */
typedef struct {
    int dtype; /* a place in the table; DTYPES where it is not among those that are read here */
    size_t elements;
    const char *address;
} Form;

/* Asks torch for the form of a gradient; 0 where its elements don't lie one after the other in CPU memory. */
static int ask_form(PyObject *gradient, Form *form)
{
    size_t address = 0;
    PyObject *dtype = PyObject_GetAttr(gradient, torch.dtype);
    if (!dtype)
        PyErr_Clear();
    for (form->dtype = 0; form->dtype < DTYPES && torch.dtypes[form->dtype].object != dtype;)
        form->dtype++;
    Py_XDECREF(dtype);
    int found = is_true(PyObject_GetAttr(gradient, torch.is_cpu)) &&
                is_true(PyObject_CallFunctionObjArgs(torch.is_contiguous, gradient, NULL)) &&
                take_number(PyObject_CallFunctionObjArgs(torch.numel, gradient, NULL), &form->elements) &&
            take_number(PyObject_CallFunctionObjArgs(torch.data_ptr, gradient, NULL), &address);
    form->address = (const char *)address;
    return found;
}

/* The same in one call, where this torch has DLPack for C. */
static int exchange_form(PyObject *gradient, Form *form)
{
    DLTensor seen;
    if (torch.exchange(gradient, &seen)) {
        PyErr_Clear();
        return 0;
    }
    for (form->dtype = 0; form->dtype < DTYPES && !is_same_dtype(seen.dtype, torch.dtypes[form->dtype].dlpack);)
        form->dtype++;
    form->address = (const char *)seen.data + seen.byte_offset;
    form->elements = 1;
    int in_a_row = 1;
    for (int32_t i = seen.ndim - 1; i >= 0; i--) {
        in_a_row &= seen.shape[i] == 1 || seen.strides[i] == (int64_t)form->elements;
        form->elements *= (size_t)seen.shape[i];
    }
    return seen.device.device_type == DLPACK_CPU && (in_a_row || !form->elements);
}

/* Takes hold of the storage of a gradient; whether it holds all that the gradient says it is made of. */
static int hold(PyObject *gradient, const Form *form, Memory *memory)
{
    size_t bytes = 0, start = 0, size = memory->count * number_sizes[memory->number];
    memory->storage = answer_of(&torch.storage, gradient, 1);
    if (!memory->storage) {
        PyErr_Clear();
        return 0;
    }
    int is_own = Py_TYPE(memory->storage) == torch.storage_type;
    /* Another thread may be putting another storage under the gradient, or this one was freed under its views. */
    return take_number(answer_of(&torch.nbytes, memory->storage, is_own), &bytes) &&
           take_number(answer_of(&torch.storage_data_ptr, memory->storage, is_own), &start) &&
           (uintptr_t)form->address >= start && (uintptr_t)form->address - start <= bytes &&
           size <= bytes - ((uintptr_t)form->address - start);
}

/* Fills in where the numbers of a gradient lie; 0 where they can't be read here. The storage is then to be let go. */
static int find(PyObject *gradient, Memory *memory)
{
    Form form;
    *memory = (Memory){0};
    /* A subclass may say that it is on the CPU and have no values at all. */
    if (!is_plain(gradient) || !(torch.exchange ? exchange_form : ask_form)(gradient, &form) || form.dtype == DTYPES)
        return 0;
    memory->number = torch.dtypes[form.dtype].number;
    memory->count = form.elements * torch.dtypes[form.dtype].numbers;
    memory->address = form.address;
    return !form.elements || hold(gradient, &form, memory);
}

/* Whether a gradient lies where it lay, after others had a turn. */
static int is_still_there(PyObject *gradient, const Memory *memory)
{
    Memory now;
    int same = find(gradient, &now) && now.storage == memory->storage && now.address == memory->address &&
               now.number == memory->number && now.count == memory->count;
    Py_XDECREF(now.storage);
    return same;
}

/* The norm of a gradient. */

typedef enum { READ, DISTURBED, UNREADABLE, RAISED } Reading;

static double squares(const Memory *memory, size_t at, size_t count, double scale)
{
    const char *numbers = memory->address + at * number_sizes[memory->number];
    if (scale == 1)
        return way->of[memory->number](numbers, count);
    return scaled_squares((const double *)numbers, count, scale);
}

/* Sums the squares of all numbers, by pieces; with turns in between, if it may. */
static Reading sum(PyObject *gradient, const Memory *memory, double scale, int may_take_turns, double *total)
{
    *total = 0;
    for (size_t at = 0; at < memory->count; at += PIECE) {
        if (at && may_take_turns) {
            PyObject *taken = PyObject_CallFunctionObjArgs(torch.take_turns, NULL);
            if (!taken)
                return RAISED;
            Py_DECREF(taken);
            if (!is_still_there(gradient, memory))
                return DISTURBED;
        }
        size_t left = memory->count - at;
        *total += squares(memory, at, left < PIECE ? left : PIECE, scale);
    }
    return READ;
}

/* The norm of what lies in memory. float64 whose squares leave the range are scaled by a power of two. */
static Reading norm_in(PyObject *gradient, const Memory *memory, int may_take_turns, double *norm)
{
    double total, scale = 1;
    Reading reading = sum(gradient, memory, 1, may_take_turns, &total);
    if (reading == READ && memory->number == FLOAT64 && (total < SMALLEST_SAFE_SUM || isinf(total))) {
        scale = isinf(total) ? DOWN : UP;
        reading = sum(gradient, memory, scale, may_take_turns, &total);
    }
    *norm = sqrt(total) / scale;
    return reading;
}

static Reading norm_of(PyObject *gradient, double *norm)
{
    Reading reading = DISTURBED;
    for (int may_take_turns = 1; may_take_turns >= 0 && reading == DISTURBED; may_take_turns--) {
        Memory memory;
        reading = find(gradient, &memory) ? norm_in(gradient, &memory, may_take_turns, norm) : UNREADABLE;
        Py_XDECREF(memory.storage);
    }
    return reading;
}

/* The norms of a list. */

typedef struct {
    double squares;       /* the sum of the squares of the norms */
    Py_ssize_t faint;     /* norms below FAINT, 0 among them */
    PyObject *unreadable; /* the places of those that can't be read here: a list, or None */
} Norms;

static int add_unreadable(Norms *norms, int64_t place)
{
    if (norms->unreadable == Py_None) {
        Py_DECREF(Py_None);
        norms->unreadable = PyList_New(0);
    }
    PyObject *number = norms->unreadable ? PyLong_FromLongLong(place) : NULL;
    int failed = !number || PyList_Append(norms->unreadable, number) < 0;
    Py_XDECREF(number);
    return failed ? -1 : 0;
}

/* Keeps a norm at its place; -1 with an exception set where there is none. */
static int keep(Norms *norms, double norm, int is_there, PyObject *out, int64_t place)
{
    /* Asked for only now: other threads may have had a turn. */
    double *kept = numbers_in(out, (Py_ssize_t)place + 1);
    if (!kept)
        return -1;
    kept[place] = norm;
    norms->squares += norm * norm;
    norms->faint += is_there && norm < FAINT;
    return 0;
}

static int measure(Norms *norms, PyObject *gradients, int64_t place, PyObject *out)
{
    PyObject *gradient = item_of(gradients, (Py_ssize_t)place);
    if (!gradient)
        return -1;
    double norm = 0;
    Reading reading = gradient == Py_None ? READ : norm_of(gradient, &norm);
    int is_there = gradient != Py_None;
    Py_DECREF(gradient);
    if (reading == RAISED)
        return -1;
    return reading == UNREADABLE || reading == DISTURBED ? add_unreadable(norms, place)
                                                         : keep(norms, norm, is_there, out, place);
}

static PyObject *norms(PyObject *module, PyObject *args)
{
    PyObject *gradients, *places, *out;
    (void)module;
    if (!PyArg_ParseTuple(args, "O!SO!", &PyList_Type, &gradients, &places, &PyByteArray_Type, &out))
        return NULL;
    Norms found = {0, 0, Py_None};
    Py_INCREF(Py_None);
    const char *at = PyBytes_AsString(places);
    int failed = 0;
    for (Py_ssize_t left = PyBytes_Size(places) / 8; left && !failed; left--, at += 8) {
        int64_t place;
        memcpy(&place, at, sizeof place);
        failed = measure(&found, gradients, place, out) < 0;
    }
    PyObject *result = failed ? NULL : Py_BuildValue("dnO", found.squares, found.faint, found.unreadable);
    Py_XDECREF(found.unreadable);
    return result;
}

/* Gradients that may be 0 everywhere: those whose first numbers all are, and those that can't be read here.

   One number tells of most gradients, but that of a unit which a ReLU has switched off is 0, row by row. */

static int may_be_zero(PyObject *gradient)
{
    Memory memory;
    if (!find(gradient, &memory))
        return 1;
    size_t end = memory.count < PIECE ? memory.count : PIECE;
    int zero = 1;
    for (size_t at = 0, some = 1; at < end && zero; at += some, some *= 2)
        zero = squares(&memory, at, some < end - at ? some : end - at, 1) == 0;
    Py_XDECREF(memory.storage);
    return zero;
}

static PyObject *perhaps_zero(PyObject *module, PyObject *args)
{
    PyObject *gradients, *places;
    (void)module;
    if (!PyArg_ParseTuple(args, "O!O!", &PyList_Type, &gradients, &PyTuple_Type, &places))
        return NULL;
    PyObject *found = PyList_New(0);
    for (Py_ssize_t at = 0; found && at < PyTuple_Size(places); at++) {
        PyObject *place = PyTuple_GetItem(places, at);
        PyObject *gradient = item_of(gradients, PyLong_AsSsize_t(place));
        if (!gradient || (gradient != Py_None && may_be_zero(gradient) && PyList_Append(found, place) < 0)) {
            Py_XDECREF(gradient);
            Py_DECREF(found);
            return NULL;
        }
        Py_DECREF(gradient);
    }
    return found;
}

/* The module. */

static PyObject *use(PyObject *module, PyObject *name)
{
    (void)module;
    for (const Way *const *found = ways(); *found; found++) {
        PyObject *own = PyUnicode_FromString((*found)->name);
        int same = own ? PyObject_RichCompareBool(own, name, Py_EQ) : -1;
        Py_XDECREF(own);
        if (same < 0)
            return NULL;
        if (same) {
            way = *found;
            Py_RETURN_NONE;
        }
    }
    PyErr_SetString(PyExc_ValueError, "no such way on this processor");
    return NULL;
}

static PyObject *names_of_ways(void)
{
    PyObject *names = PyList_New(0);
    for (const Way *const *found = ways(); names && *found; found++) {
        PyObject *name = PyUnicode_FromString((*found)->name);
        if (!name || PyList_Append(names, name) < 0)
            Py_CLEAR(names);
        Py_XDECREF(name);
    }
    PyObject *fixed = names ? PyList_AsTuple(names) : NULL;
    Py_XDECREF(names);
    return fixed;
}

static PyObject *attribute(const char *module_name, const char *type_name, const char *name)
{
    PyObject *module = PyImport_ImportModule(module_name);
    PyObject *type = module && type_name ? PyObject_GetAttrString(module, type_name) : Py_XNewRef(module);
    PyObject *found = type ? PyObject_GetAttrString(type, name) : NULL;
    Py_XDECREF(module);
    Py_XDECREF(type);
    return found;
}

static int know_dtypes(void)
{
    static const struct {
        const char *name;
        DLDataType dlpack;
        Number number;
        size_t numbers;
    } known[DTYPES] = {
        {"float32", {DLPACK_FLOAT, 32, 1}, FLOAT32, 1},     {"float16", {DLPACK_FLOAT, 16, 1}, FLOAT16, 1},
        {"bfloat16", {DLPACK_BFLOAT, 16, 1}, BFLOAT16, 1},  {"float64", {DLPACK_FLOAT, 64, 1}, FLOAT64, 1},
        {"complex64", {DLPACK_COMPLEX, 64, 1}, FLOAT32, 2}, {"complex128", {DLPACK_COMPLEX, 128, 1}, FLOAT64, 2},
    };
    for (int i = 0; i < DTYPES; i++) {
        torch.dtypes[i].object = attribute("torch", NULL, known[i].name);
        torch.dtypes[i].dlpack = known[i].dlpack;
        torch.dtypes[i].number = known[i].number;
        torch.dtypes[i].numbers = known[i].numbers;
        if (!torch.dtypes[i].object)
            return -1;
    }
    return 0;
}

/* Torch's DLPack for C; NULL, and no exception, where it has none of the major version that is known here. */
static DLTensorOfObject exchange_of_torch(void)
{
    PyObject *capsule = attribute("torch", "Tensor", "__dlpack_c_exchange_api__");
    const DLExchange *found = capsule ? PyCapsule_GetPointer(capsule, "dlpack_exchange_api") : NULL;
    Py_XDECREF(capsule); /* the class keeps it */
    if (!found)
        PyErr_Clear();
    return found && found->major == 1 ? found->tensor_of_object : NULL;
}

/* The C function that gets an attribute of tensors, where it is one of C. */
static int know_value(Value *value, const char *name)
{
    static PyTypeObject *of_c = NULL;
    PyObject *types = of_c ? NULL : attribute("types", NULL, "GetSetDescriptorType");
    of_c = types ? (PyTypeObject *)types : of_c;
    value->name = PyUnicode_InternFromString(name);
    value->descriptor = attribute("torch", "Tensor", name);
    if (!value->name || !value->descriptor || !of_c)
        return -1;
    if (Py_TYPE(value->descriptor) == of_c)
        value->get = (descrgetfunc)PyType_GetSlot(of_c, Py_tp_descr_get);
    return 0;
}

/* The C function behind a method, which an object of its type has bound to itself, where it takes nothing else. */
static int know_method(Method *method, PyObject *object, const char *name)
{
    method->method = PyObject_GetAttrString((PyObject *)Py_TYPE(object), name);
    PyObject *bound = method->method ? PyObject_GetAttrString(object, name) : NULL;
    if (!bound)
        return -1;
    if (PyCFunction_Check(bound) && PyCFunction_GetFlags(bound) == METH_NOARGS)
        method->function = PyCFunction_GetFunction(bound);
    Py_DECREF(bound);
    return 0;
}

static int know_storage(void)
{
    PyObject *empty = attribute("torch", NULL, "empty");
    PyObject *nowhere = Py_BuildValue("(i)", 0), *host = Py_BuildValue("{ss}", "device", "cpu");
    PyObject *tensor = empty && nowhere && host ? PyObject_Call(empty, nowhere, host) : NULL;
    int failed = !tensor || know_method(&torch.storage, tensor, "untyped_storage") < 0;
    PyObject *storage = failed ? NULL : answer_of(&torch.storage, tensor, 1);
    failed = !storage || know_method(&torch.nbytes, storage, "nbytes") < 0 ||
             know_method(&torch.storage_data_ptr, storage, "data_ptr") < 0;
    if (storage)
        torch.storage_type = (PyTypeObject *)Py_NewRef((PyObject *)Py_TYPE(storage));
    Py_XDECREF(storage);
    Py_XDECREF(tensor);
    Py_XDECREF(host);
    Py_XDECREF(nowhere);
    Py_XDECREF(empty);
    return failed ? -1 : 0;
}

/* What is asked of torch, looked up once. */
static int know_torch(void)
{
    const struct {
        PyObject **to;
        const char *module, *type, *name;
    } known[] = {
        {(PyObject **)&torch.tensor, "torch", NULL, "Tensor"},
        {(PyObject **)&torch.parameter, "torch.nn", NULL, "Parameter"},
        {&torch.version_of, "gradwatch.measure.sharding.parts", NULL, "version_of"},
        {&torch.take_turns, "gradwatch.measure.turns", NULL, "take_turns"},
        {&torch.is_contiguous, "torch", "Tensor", "is_contiguous"},
        {&torch.numel, "torch", "Tensor", "numel"},
        {&torch.data_ptr, "torch", "Tensor", "data_ptr"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!(*known[i].to = attribute(known[i].module, known[i].type, known[i].name)))
            return -1;
    torch.exchange = exchange_of_torch();
    torch.is_cpu = PyUnicode_InternFromString("is_cpu");
    torch.dtype = PyUnicode_InternFromString("dtype");
    torch.params = PyUnicode_InternFromString("params");
    if (!torch.is_cpu || !torch.dtype || !torch.params || know_value(&torch.grad, "grad") < 0 ||
        know_value(&torch.version, "_version") < 0 || know_storage() < 0)
        return -1;
    return know_dtypes();
}

static PyMethodDef methods[] = {
    {"look", look, METH_VARARGS, "See gradwatch.measure.kernel."},
    {"unchanged", unchanged, METH_VARARGS, "See gradwatch.measure.kernel."},
    {"holds", holds, METH_VARARGS, "See gradwatch.measure.kernel."},
    {"norms", norms, METH_VARARGS, "See gradwatch.measure.kernel; what can't be read here is left to the caller."},
    {"perhaps_zero", perhaps_zero, METH_VARARGS, "The places of those whose first numbers are all 0, or can't be read here."},
    {"forked", forked, METH_NOARGS, "This process is a fork: what was made in the other one is silent."},
    {"use", use, METH_O, "Sum by the way of this name, one of WAYS; for tests."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_native", "Norms of CPU gradients.", -1, methods,
                                        NULL,                  NULL,      NULL,                      NULL};

PyMODINIT_FUNC PyInit__native(void)
{
    way = *ways();
    PyObject *names = know_torch() < 0 ? NULL : names_of_ways();
    PyObject *module = names ? PyModule_Create(&definition) : NULL;
    PyObject *shield = module ? shield_type() : NULL;
    if (module && (!shield || PyObject_SetAttrString(module, "Shield", shield) < 0 ||
                   PyObject_SetAttrString(module, "WAYS", names) < 0))
        Py_CLEAR(module);
    Py_XDECREF(shield);
    Py_XDECREF(names);
    return module;
}
