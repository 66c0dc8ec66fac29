/* Numbers of methods and global functions (internal to api/jinja*.c); the tables are in jinja_calls.c. */
#ifndef QN_JINJA_METHODS_H
#define QN_JINJA_METHODS_H

/* clang-format off */
enum {
    M_capitalize, M_casefold, M_center, M_encode, M_endswith, M_expandtabs, M_find, M_format, M_format_map, M_isalnum,
    M_isalpha,
    M_isascii, M_isdecimal, M_isdigit, M_isidentifier, M_islower, M_isnumeric, M_isprintable, M_isspace, M_istitle,
    M_isupper, M_join,
    M_ljust, M_lower, M_lstrip, M_maketrans, M_partition, M_removeprefix, M_removesuffix, M_replace, M_rfind, M_rindex, M_rjust,
    M_rpartition, M_rsplit, M_rstrip, M_split, M_splitlines, M_startswith, M_strip, M_swapcase, M_title, M_translate,
    M_upper, M_zfill,
    M_count, M_index, M_copy, M_get, M_items, M_keys, M_values, M_fromkeys, M_clear, M_pop, M_popitem, M_setdefault, M_update,
    M_append, M_extend, M_insert, M_remove, M_reverse, M_sort, M_next, M_reset, M_cycle, M_changed,
    M_COUNT
};
enum { F_range, F_dict, F_namespace, F_cycler, F_joiner, F_raise_exception, F_strftime_now, F_COUNT };
/* clang-format on */

#endif
