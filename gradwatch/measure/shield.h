/* The type `Shield`, and what the module calls in a forked child. */

PyObject *shield_type(void);
PyObject *forked(PyObject *module, PyObject *unused);
