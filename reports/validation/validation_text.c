/* An outcome for people: text for a terminal, Markdown for a folder. */
#include "reports/validation/validation_private.h"

#include <math.h>
#include <string.h>

/* ---- numbers --------------------------------------------------------------------------------- */

typedef struct number {
    char text[32];
} number;

static number percent(double value, bool sign)
{
    number printed;
    snprintf(printed.text, sizeof printed.text, sign ? "%+.1f %%" : "%.1f %%", 100 * value);
    return printed;
}

static number correlation(double value)
{
    number printed = {"-"};
    if (!isnan(value))
        snprintf(printed.text, sizeof printed.text, "%.3f", value);
    return printed;
}

/* ---- verdicts -------------------------------------------------------------------------------- */

static void print_verdict(const moe_validation_verdict *verdict, FILE *stream)
{
    const moe_validation_goal *goal = &verdict->goal;
    fprintf(stream, "%s: goal %s: %s ", goal->group, verdict->reached ? "reached" : "missed",
            goal->median ? "median error" : "mean error");
    if (isnan(verdict->value))
        fputs("unknown (no comparisons)", stream);
    else
        fputs(percent(verdict->value, false).text, stream);
    fprintf(stream, ", at most %s wanted", percent(goal->limit, false).text);
    if (goal->because != NULL)
        fprintf(stream, " (%s)", goal->because);
    fputc('\n', stream);
}

/* ---- text ------------------------------------------------------------------------------------ */

static int group_width(const moe_validation_outcome *outcome)
{
    size_t width = 5;
    for (size_t g = 0; g < outcome->group_count; g++) {
        const size_t length = strlen(outcome->groups[g].name);
        width = length > width ? length : width;
    }
    return (int)width;
}

static void print_groups(const moe_validation_outcome *outcome, FILE *stream)
{
    const int width = group_width(outcome);
    if (outcome->group_count > 0)
        fprintf(stream, "\n  %-*s %7s %8s %8s %9s %8s %8s %6s  %s\n", width, "group", "points",
                "MAPE", "median", "worst", "bias", "Pearson", "rank", "worst at");
    for (size_t g = 0; g < outcome->group_count; g++) {
        const moe_validation_group *group = &outcome->groups[g];
        fprintf(stream, "  %-*s %7zu %8s %8s %9s %8s %8s %6s  %s\n", width, group->name,
                group->count, percent(group->mape, false).text, percent(group->median, false).text,
                percent(group->worst, true).text, percent(group->bias, true).text,
                correlation(group->pearson).text, correlation(group->rank).text,
                group->worst_what != NULL ? group->worst_what : "-");
        if (group->unusable > 0)
            fprintf(stream,
                    "  %-*s %7zu without a relative error (measured 0, or a value not finite)\n",
                    width, "", group->unusable);
    }
}

static void print_texts(const char *title, const moe_validation_texts *texts, FILE *stream)
{
    if (texts->count > 0)
        fprintf(stream, "\n%s\n", title);
    for (size_t i = 0; i < texts->count; i++)
        fprintf(stream, "  %s\n", texts->items[i]);
}

static void print_figures(const moe_validation_outcome *outcome, FILE *stream)
{
    if (outcome->figure_count > 0)
        fputc('\n', stream);
    for (size_t i = 0; i < outcome->figure_count; i++)
        fprintf(stream, "  %s: %.4g\n", outcome->figures[i].name, outcome->figures[i].value);
}

void moe_validation_text(const moe_validation_outcome *outcome, FILE *stream)
{
    const moe_validation_suite *suite = outcome->suite;
    fprintf(stream, "%s: %s\n", suite->name, suite->sentence);
    if (outcome->skipped != NULL) {
        fprintf(stream, "  skipped: %s\n", outcome->skipped);
        return;
    }
    fprintf(stream, "measured: %s [%s]\n", suite->source, suite->unit);
    if (outcome->fitted.count == 0)
        fputs("fitted on these measurements: nothing\n", stream);
    print_texts("fitted", &outcome->fitted, stream);
    print_groups(outcome, stream);
    print_figures(outcome, stream);
    print_texts("notes", &outcome->notes, stream);
    if (outcome->verdict_count > 0)
        fputc('\n', stream);
    for (size_t v = 0; v < outcome->verdict_count; v++)
        print_verdict(&outcome->verdicts[v], stream);
}

/* ---- Markdown -------------------------------------------------------------------------------- */

/* In a cell of a table. */
static void print_cell(const char *text, FILE *stream)
{
    for (; *text != '\0'; text++) {
        if (*text == '|')
            fputc('\\', stream);
        fputc(*text, stream);
    }
}

static void mark_groups(const moe_validation_outcome *outcome, FILE *stream)
{
    if (outcome->group_count == 0)
        return;
    fputs("\n| group | points | MAPE | median | worst | bias | Pearson | rank | worst at |\n"
          "|---|---:|---:|---:|---:|---:|---:|---:|---|\n",
          stream);
    for (size_t g = 0; g < outcome->group_count; g++) {
        const moe_validation_group *group = &outcome->groups[g];
        fputs("| ", stream);
        print_cell(group->name, stream);
        fprintf(stream, " | %zu | %s | %s | %s | %s | %s | %s | ", group->count,
                percent(group->mape, false).text, percent(group->median, false).text,
                percent(group->worst, true).text, percent(group->bias, true).text,
                correlation(group->pearson).text, correlation(group->rank).text);
        print_cell(group->worst_what != NULL ? group->worst_what : "-", stream);
        fputs(" |\n", stream);
        if (group->unusable > 0)
            fprintf(stream, "| | %zu | without a relative error | | | | | | |\n", group->unusable);
    }
}

static void mark_list(const char *title, const moe_validation_texts *texts, FILE *stream)
{
    if (texts->count > 0)
        fprintf(stream, "\n## %s\n\n", title);
    for (size_t i = 0; i < texts->count; i++)
        fprintf(stream, "- %s\n", texts->items[i]);
}

static void mark_figures(const moe_validation_outcome *outcome, FILE *stream)
{
    if (outcome->figure_count > 0)
        fputs("\n## Figures\n\n| | |\n|---|---:|\n", stream);
    for (size_t i = 0; i < outcome->figure_count; i++) {
        fputs("| ", stream);
        print_cell(outcome->figures[i].name, stream);
        fprintf(stream, " | %.4g |\n", outcome->figures[i].value);
    }
}

void moe_validation_markdown(const moe_validation_outcome *outcome, const char *picture,
                             FILE *stream)
{
    const moe_validation_suite *suite = outcome->suite;
    fprintf(stream, "# %s: %s\n\nWritten by `moeplan validate %s --out DIR`; do not edit.\n\n",
            suite->name, suite->sentence, suite->name);
    if (outcome->skipped != NULL) {
        fprintf(stream, "Skipped: %s\n", outcome->skipped);
        return;
    }
    fprintf(stream, "Measured: %s. Unit: %s.\n", suite->source, suite->unit);
    if (outcome->fitted.count == 0)
        fputs("Fitted on these measurements: nothing.\n", stream);
    if (outcome->verdict_count > 0)
        fputc('\n', stream);
    for (size_t v = 0; v < outcome->verdict_count; v++) {
        fputs("- ", stream);
        print_verdict(&outcome->verdicts[v], stream);
    }
    mark_groups(outcome, stream);
    if (picture != NULL)
        fprintf(stream, "\n![predicted against measured](%s)\n", picture);
    mark_list("Fitted", &outcome->fitted, stream);
    mark_figures(outcome, stream);
    mark_list("Notes", &outcome->notes, stream);
}
