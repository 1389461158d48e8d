// A cublasLt without a GPU: the calls that kiln makes, with the values and sizes of the real header. Sums are added in
// an order that depends on all that the real library may look at (sizes, types, transposition, alignment of addresses
// and rows), so that two calls which only ought to be the same differ.
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

namespace {

enum { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID = 7, NOT_SUPPORTED = 15 };
enum { R_32F = 0, R_64F = 1, R_16F = 2, R_16BF = 14 };

enum Kind { HANDLE = 0x11, DESC, LAYOUT, PREFERENCE };

struct Attribute {
    int id;
    size_t size;
};

const Attribute DESC_ATTRIBUTES[] = {{0, 4}, {1, 4}, {2, 4}, {3, 4}, {4, 4}, {5, 4}, {6, 4}, {7, 4}, {8, 8}, {10, 8}, {26, 4}};
const Attribute LAYOUT_ATTRIBUTES[] = {{0, 4}, {1, 4}, {2, 8}, {3, 8}, {4, 8}, {5, 4}, {6, 8}};
const Attribute PREFERENCE_ATTRIBUTES[] = {{0, 4}, {1, 8}, {3, 4}, {5, 4}, {6, 4}, {7, 4}, {8, 4}, {9, 4}, {12, 8}};

struct Object {
    Kind kind;
    uint64_t values[32];
};

struct Algo {
    uint64_t data[8];
};

struct Result {
    Algo algo;
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
};

struct Operand {
    char *at;
    int type;
    uint64_t rows, columns;
    int64_t ld, pace;
};

// What the device does when its turn comes.
struct Job {
    Operand a, b, d;
    char *bias, *workspace;
    uint64_t workspace_bytes, bytes[5];
    int turned_a, turned_b, tf32, batch, bias_type, lanes, broken;
    uint64_t k, bias_pace;
};

typedef void (*Issue)(Job *, void *);
typedef int (*Fail)(const char *);
Issue issue_job;
Fail fail_call;
int64_t alive;
uint64_t random_state;
int only_dense;

int failed(const char *name) { return fail_call ? fail_call(name) : 0; }

int make(void **out, Kind kind) {
    if (!out) return INVALID;
    Object *made = (Object *)calloc(1, sizeof(Object));
    made->kind = kind;
    *out = made;
    alive++;
    return SUCCESS;
}

int destroy(void *object, Kind kind) {
    Object *x = (Object *)object;
    if (!x || x->kind != kind) return INVALID;
    memset(x, 0xA5, sizeof *x);
    free(x);
    alive--;
    return SUCCESS;
}

template <int N>
int set(void *object, Kind kind, const Attribute (&known)[N], int id, const void *from, size_t size) {
    Object *x = (Object *)object;
    if (!x || x->kind != kind || !from) return INVALID;
    for (int k = 0; k < N; k++)
        if (known[k].id == id) {
            if (known[k].size != size) return INVALID;
            x->values[id] = 0;
            memcpy(&x->values[id], from, size);
            return SUCCESS;
        }
    return INVALID;
}

size_t bytes_of(int type) { return type == R_64F ? 8 : type == R_32F ? 4 : 2; }

double tf32(double x) {
    float f = (float)x;
    uint32_t bits;
    memcpy(&bits, &f, 4);
    if ((bits >> 23 & 255) != 255) bits = (bits + 0xFFF + (bits >> 13 & 1)) & ~0x1FFFu;
    memcpy(&f, &bits, 4);
    return f;
}

double power(int e) {
    double x = 1;
    for (; e > 0; e--) x *= 2;
    for (; e < 0; e++) x /= 2;
    return x;
}

double get(const char *from, int type) {
    if (type == R_64F) {
        double x;
        memcpy(&x, from, 8);
        return x;
    }
    uint32_t bits = 0;
    memcpy(&bits, from, bytes_of(type));
    if (type == R_16F) {
        int e = bits >> 10 & 31, m = bits & 1023;
        double x = e == 31 ? (m ? 0.0 / 0.0 : 1.0 / 0.0) : e ? (1024 + m) * power(e - 25) : m * power(-24);
        return bits >> 15 ? -x : x;
    }
    if (type == R_16BF) bits <<= 16;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

void put(char *to, int type, double x) {
    if (type == R_64F) {
        memcpy(to, &x, 8);
        return;
    }
    float f = (float)x;
    uint32_t bits;
    memcpy(&bits, &f, 4);
    if (type == R_16BF) {
        bits = f != f ? 0x7FC0 : (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
    } else if (type == R_16F) {
        uint32_t sign = bits >> 16 & 0x8000, size = bits & 0x7FFFFFFF;
        if (size > 0x7F800000) bits = 0x7E00;
        else if (size >= 0x477FF000) bits = sign | 0x7C00;
        else if (size < 0x38800000) {  // below the normal numbers: in units of 2^-24, to even
            float scaled;
            memcpy(&scaled, &size, 4);
            scaled = scaled * 16777216.0f + 12582912.0f;
            memcpy(&bits, &scaled, 4);
            bits = sign | (bits & 0x7FF);
        } else bits = sign | ((size - 0x38000000 + 0xFFF + (size >> 13 & 1)) >> 13);
    }
    memcpy(to, &bits, bytes_of(type));
}

Operand operand(const void *at, void *layout) {
    uint64_t *v = ((Object *)layout)->values;
    return {(char *)at, (int)v[0], v[2], v[3], (int64_t)v[4], (int64_t)v[6]};
}

uint64_t alignment(const Operand &x, int batch) {
    uint64_t all = (uint64_t)x.at | (batch > 1 ? (uint64_t)x.pace * bytes_of(x.type) : 0);
    all |= x.columns > 1 ? (uint64_t)x.ld * bytes_of(x.type) : 0;
    uint64_t low = all & -all;
    return low == 0 || low > 16 ? 16 : low;
}

uint64_t mixed(uint64_t x, uint64_t more) {
    x = (x ^ more) * 0x9E3779B97F4A7C15ull;
    return x ^ x >> 29;
}

// Whether the description fits: what the real library refuses.
int check(void *desc, void *a, void *b, void *c, void *d) {
    Object *op = (Object *)desc;
    void *layouts[] = {a, b, c, d};
    if (!op || op->kind != DESC) return INVALID;
    for (void *each : layouts) {
        Object *x = (Object *)each;
        if (!x || x->kind != LAYOUT || (int64_t)x->values[4] < (int64_t)x->values[2] || !x->values[2] || !x->values[3]) return INVALID;
        if (x->values[1] || x->values[5] != ((Object *)d)->values[5] || (int64_t)x->values[6] < 0) return INVALID;
    }
    Operand A = operand(0, a), B = operand(0, b), C = operand(0, c), D = operand(0, d);
    uint64_t *v = op->values;
    uint64_t m = v[3] ? A.columns : A.rows, k = v[3] ? A.rows : A.columns;
    uint64_t other = v[4] ? B.columns : B.rows, n = v[4] ? B.rows : B.columns;
    if (v[3] > 1 || v[4] > 1 || k != other || m != D.rows || n != D.columns || C.rows != D.rows) return INVALID;
    bool twice = A.type == R_64F, half = A.type == R_16F || A.type == R_16BF;
    if (A.type != B.type || C.type != D.type || (int)v[1] != (twice ? R_64F : R_32F)) return NOT_SUPPORTED;
    if (!(D.type == A.type || (half && D.type == R_32F)) || v[0] != (twice ? 70u : v[0] == 77 ? 77u : 68u)) return NOT_SUPPORTED;
    if (v[7] && v[7] != 1 && v[7] != 4) return NOT_SUPPORTED;
    if (v[7] == 4 && (int)v[26] != D.type) return NOT_SUPPORTED;
    return SUCCESS;
}

uint64_t wanted(void *desc, void *a, void *b, void *d) {
    uint64_t *v = ((Object *)desc)->values, code = 1;
    Operand all[] = {operand(0, a), operand(0, b), operand(0, d)};
    for (const Operand &x : all) code = mixed(mixed(mixed(mixed(code, x.rows), x.columns), x.type), x.ld * 7 + x.pace);
    return mixed(mixed(mixed(code, v[3]), v[4]), ((Object *)d)->values[5]);
}

}  // namespace

extern "C" {

// ------------------------------------------------------------------------------------------------- for the tests

void fake_setup(Issue issue, Fail fail) { issue_job = issue, fail_call = fail; }
int64_t fake_alive() { return alive; }
void fake_only_dense(int on) { only_dense = on; }

void fake_done(Job *job) { free(job); }

void fake_run(Job *job, uint64_t tag) {
    Operand &a = job->a, &b = job->b, &d = job->d;
    char **pointers[] = {&a.at, &b.at, &d.at, &job->bias, &job->workspace};
    for (char **at : pointers) *at = (char *)((uint64_t)*at & ~tag);
    if (job->workspace_bytes) memset(job->workspace, 0xE7, job->workspace_bytes);
    for (int q = 0; q < job->batch; q++)
        for (uint64_t column = 0; column < d.columns; column++)
            for (uint64_t row = 0; row < d.rows; row++) {
                double lanes[8] = {0};
                for (uint64_t k = 0; k < job->k; k++) {
                    uint64_t in_a = job->turned_a ? row * a.ld + k : k * a.ld + row;
                    uint64_t in_b = job->turned_b ? k * b.ld + column : column * b.ld + k;
                    double x = get(a.at + (q * a.pace + in_a) * bytes_of(a.type), a.type);
                    double y = get(b.at + (q * b.pace + in_b) * bytes_of(b.type), b.type);
                    if (job->tf32) x = tf32(x), y = tf32(y);
                    double &sum = lanes[k % job->lanes];
                    sum = a.type == R_64F ? sum + x * y : (double)(float)(sum + x * y);
                }
                double total = 0;
                for (int k = 0; k < job->lanes; k++) total = a.type == R_64F ? total + lanes[k] : (double)(float)(total + lanes[k]);
                if (job->broken) total += 1e-3 * (++random_state % 7);
                if (job->bias) {
                    total += get(job->bias + (q * job->bias_pace + row) * bytes_of(job->bias_type), job->bias_type);
                    if (a.type != R_64F) total = (float)total;
                }
                put(d.at + (q * d.pace + column * d.ld + row) * bytes_of(d.type), d.type, total);
            }
}

// --------------------------------------------------------------------------------------------------- the library

size_t cublasLtGetVersion() { return 130000; }

int cublasLtCreate(void **out) {
    int status = failed("Create");
    return status ? status : make(out, HANDLE);
}
int cublasLtDestroy(void *x) { return destroy(x, HANDLE); }

int cublasLtMatmulDescCreate(void **out, int compute, int scale) {
    int status = make(out, DESC);
    uint64_t *v = ((Object *)*out)->values;
    v[0] = compute, v[1] = scale, v[7] = 1, v[26] = (uint32_t)-1;
    return status;
}
int cublasLtMatmulDescDestroy(void *x) { return destroy(x, DESC); }
int cublasLtMatmulDescSetAttribute(void *x, int id, const void *from, size_t size) {
    return set(x, DESC, DESC_ATTRIBUTES, id, from, size);
}

int cublasLtMatrixLayoutCreate(void **out, int type, uint64_t rows, uint64_t columns, int64_t ld) {
    int status = make(out, LAYOUT);
    uint64_t *v = ((Object *)*out)->values;
    v[0] = type, v[2] = rows, v[3] = columns, v[4] = ld, v[5] = 1;
    return status;
}
int cublasLtMatrixLayoutDestroy(void *x) { return destroy(x, LAYOUT); }
int cublasLtMatrixLayoutSetAttribute(void *x, int id, const void *from, size_t size) {
    return set(x, LAYOUT, LAYOUT_ATTRIBUTES, id, from, size);
}

int cublasLtMatmulPreferenceCreate(void **out) {
    int status = make(out, PREFERENCE);
    uint64_t *v = ((Object *)*out)->values;
    v[3] = 7, v[5] = v[6] = v[7] = v[8] = 256;
    return status;
}
int cublasLtMatmulPreferenceDestroy(void *x) { return destroy(x, PREFERENCE); }
int cublasLtMatmulPreferenceSetAttribute(void *x, int id, const void *from, size_t size) {
    return set(x, PREFERENCE, PREFERENCE_ATTRIBUTES, id, from, size);
}

int cublasLtMatmulAlgoGetHeuristic(void *handle, void *desc, void *a, void *b, void *c, void *d, void *preference, int count,
                                   Result *results, int *made) {
    Object *h = (Object *)handle, *p = (Object *)preference;
    if (!h || h->kind != HANDLE) return NOT_INITIALIZED;
    if (!p || p->kind != PREFERENCE || count < 1 || !results || !made) return INVALID;
    int status = failed("MatmulAlgoGetHeuristic");
    if (!status) status = check(desc, a, b, c, d);
    if (status) return status;
    memset(results, 0xA5, sizeof *results);
    uint64_t *v = p->values, k = operand(0, a).rows + operand(0, a).columns;
    size_t workspace = k > 40 && v[1] >= 1024 ? 1024 : 0;
    results->algo = {{wanted(desc, a, b, d), workspace, v[5], (v[3] & 5) != 0}};
    results->workspace = workspace;
    results->state = SUCCESS;
    *made = 1;
    return SUCCESS;
}

int cublasLtMatmulAlgoCheck(void *handle, void *desc, void *a, void *b, void *c, void *d, const Algo *algo, Result *result) {
    if (!handle || ((Object *)handle)->kind != HANDLE) return NOT_INITIALIZED;
    int status = check(desc, a, b, c, d);
    if (status) return status;
    if (only_dense && wanted(desc, a, b, d) != algo->data[0]) return NOT_SUPPORTED;
    memset(result, 0xA5, sizeof *result);
    result->workspace = algo->data[1];
    result->state = SUCCESS;
    return SUCCESS;
}

int cublasLtMatmul(void *handle, void *desc, const void *alpha, const void *at_a, void *a, const void *at_b, void *b,
                   const void *beta, const void *at_c, void *c, void *at_d, void *d, const Algo *algo, void *workspace,
                   size_t size, void *stream) {
    if (!handle || ((Object *)handle)->kind != HANDLE) return NOT_INITIALIZED;
    int status = failed("Matmul");
    if (!status) status = check(desc, a, b, c, d);
    if (status) return status;
    if (!alpha || !beta || !at_a || !at_b || !at_d || !algo || size < algo->data[1] || (algo->data[1] && !workspace)) return INVALID;
    uint64_t *v = ((Object *)desc)->values;
    int type = operand(0, a).type;
    double one = 0, zero = 1;
    if (type == R_64F) memcpy(&one, alpha, 8), memcpy(&zero, beta, 8);
    else one = *(const float *)alpha, zero = *(const float *)beta;
    if (one != 1 || zero != 0 || at_c != at_d) return NOT_SUPPORTED;
    Job *job = (Job *)calloc(1, sizeof(Job));
    job->a = operand(at_a, a), job->b = operand(at_b, b), job->d = operand(at_d, d);
    job->bias_pace = v[10];
    job->bias = v[7] == 4 ? (char *)v[8] : 0, job->bias_type = (int)v[26];
    job->workspace = (char *)workspace, job->workspace_bytes = algo->data[1];
    job->turned_a = v[3], job->turned_b = v[4], job->tf32 = v[0] == 77, job->broken = algo->data[3];
    job->batch = (int)((Object *)d)->values[5];
    job->k = v[3] ? job->a.rows : job->a.columns;
    uint64_t code = algo->data[0];
    const Operand *all[] = {&job->a, &job->b, &job->d};
    for (const Operand *x : all) {
        uint64_t low = alignment(*x, job->batch);
        if ((uint64_t)x->at % algo->data[2]) { free(job); return INVALID; }
        code = mixed(code, low);
    }
    job->lanes = 1 + code % 7;
    for (int i = 0; i < 3; i++) {
        const Operand &x = *all[i];
        job->bytes[i] = ((job->batch - 1) * x.pace + (x.columns - 1) * x.ld + x.rows) * bytes_of(x.type);
    }
    job->bytes[3] = job->bias ? ((job->batch - 1) * v[10] + job->d.rows) * bytes_of(job->bias_type) : 0;
    job->bytes[4] = job->workspace_bytes;
    issue_job(job, stream);
    return SUCCESS;
}
}
