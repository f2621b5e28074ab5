/* moeplan profile suite|fit|import|derive|show|compare ...: argv[0] is "profile". Returns the exit code. */
#ifndef MOE_CALIBRATE_FIT_PROFILE_COMMAND_H
#define MOE_CALIBRATE_FIT_PROFILE_COMMAND_H

int moe_profile_command(int argc, char **argv);

/* The subcommands, one file each (profile_fit.c, ...); argv[0] is "moeplan profile fit", ... */
int moe_profile_suite_command(int argc, char **argv);
int moe_profile_fit_command(int argc, char **argv);
int moe_profile_import_command(int argc, char **argv);
int moe_profile_derive_command(int argc, char **argv);
int moe_profile_show_command(int argc, char **argv);
int moe_profile_compare_command(int argc, char **argv);

#endif
