/* The subcommands that stand on everything: each takes its own argc and argv (argv[0] is its name) and
 * returns the exit code. */
#ifndef MOE_REPORTS_COMMANDS_H
#define MOE_REPORTS_COMMANDS_H

int moe_simulate_command(int argc, char **argv); /* simulate_command.c */
int moe_plan_command(int argc, char **argv);     /* plan_command.c */
int moe_timeline_command(int argc, char **argv); /* timeline_command.c */
int moe_list_command(int argc, char **argv);     /* list_command.c */
int moe_explain_command(int argc, char **argv);  /* explain_command.c */
int moe_check_command(int argc, char **argv);    /* check_command.c */
int moe_cluster_command(int argc, char **argv);  /* cluster_command.c */

#endif
